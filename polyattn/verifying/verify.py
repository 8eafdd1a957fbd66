"""`verify`: the lowered graph against the definition. Imports torch only when called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from secrets import randbits
from typing import Any, overload

from polyattn.algebra import Spec
from polyattn.errors import ProofError, SizeError
from polyattn.verifying.verification import Verification

LEVELS = ("symbolic", "modular", "numeric")
DTYPES = ("float64", "float32", "bfloat16")


@overload
def verify(
    subject: Any,
    sizes: Mapping[str, int] | None = None,
    level: str = "symbolic",
    *,
    objective: str = "forward",
    derivative: bool = False,
    dtypes: Sequence[str] = DTYPES,
    seed: int | None = None,
    budget: int | None = None,
) -> Verification: ...


@overload
def verify(
    subject: Any,
    spec: Spec | str,
    sizes: Mapping[str, int],
    level: str = "modular",
    *,
    parameters: Mapping[str, str] | None = None,
    derivative: bool = False,
    dtype: Any = "float32",
    seed: int | None = None,
    budget: int | None = None,
) -> Verification: ...


def verify(subject: Any, *arguments: Any, **options: Any) -> Verification:
    """Check that code computes a specification: the graph that polyattn lowers it to, or a candidate of your own.

    `verify(subject, sizes, level="symbolic", ...)` checks the executed graph `lower(plan(spec, sizes, objective))`:

    - "symbolic": the graph is run on symbols; every entry of the output, as a polynomial in them, must equal the entry
      by the explicit interaction tensor of order 2(D+1) (Poly-NL, Eq. 4), coefficient for coefficient. Small sizes.
    - "modular": the graph is run in exact arithmetic modulo a random prime, at a random point, on a batch of two,
      against the expanded monomials, contracted in another order by other code. A wrong graph passes with a chance
      (Schwartz and Zippel) of at most 2^-100, which the result states.
    - "numeric": the graph in floating point against exact arithmetic (with functions: against intervals that enclose
      the exact values), the error compared with a bound that adds up the rounding of each operation. Not a proof, but
      of the torch kernels. Entries of unbounded error are undecided, and the result is not true.

    A lowered graph is checked as it is given, also after changes. Of a forward graph with `derivative=True` these are
    its output and, at the numeric level, the gradients of autograd through it; the plan's own passes are checked
    beside it, and the result says which check is of which graph.

    `verify(candidate, spec, sizes, level="modular", ...)` judges a candidate: a function of tensors, a module, or
    code that launches Triton kernels (in Triton's interpreter). It gets the inputs (B, *axes), then the parameters, in
    the specification's order, by name where its signature has those names. Its floats are elements of a finite
    field, so that sums and products are exact in any order: one forgotten term of 20,000 shows in the result. Casts
    between float dtypes change nothing. A Python float stands for the simplest rational that rounds to it (1/784), or
    for a root of one (1/sqrt(8)); exponentials are followed as powers, softmax as a quotient of their sums. Other
    functions, such as relu or a maximum, are functions without laws: then "equal" holds whatever they are, and a
    difference is confirmed in float64 or left undecided. Comparisons of values, random numbers and other operations
    without a meaning in a ring are refused by their names. In kernels exponentials and maxima along an axis are, too;
    a kernel's results are taken to have a degree of 32 at most when the chance of a false yes is stated.

    Args:
        subject: a specification or its text, a plan, a lowered graph, a module with a specification; or a candidate.
        spec: for a candidate, the specification or its text.
        sizes: a number for every size; not needed for a plan or a graph.
        level: see above; "modular" for a candidate.
        objective: the objective of the plan, for a specification.
        derivative: check the gradients by all inputs and parameters as well: the planned backward pass (of the
            objective "training", if the subject comes without one) and, at the numeric level, autograd through the
            graph; of a candidate, autograd through it.
        dtypes: at the numeric level, the precisions.
        parameters: for a module, the qualified name of its parameter or buffer for each parameter of the specification
            that it does not have under the same name, such as {"w1": "proj.weight"}. Axes of length 1 do not count.
        dtype: the dtype that a candidate sees.
        seed: seed of the random tensors; default a fresh one. The result has it.
        budget: at the symbolic level the largest number of products of monomials (default 2 million), else of
            multiply-accumulates (default 50 million of a graph, 200 million of a candidate's specification).

    Returns:
        A result that is true if all entries agree, prints as a paragraph, and has the first difference.

    Raises:
        NotPolynomialError: the specification applies functions, at the first two levels of a graph.
        BudgetError: the check would take too long, such as intervals for functions at large sizes.
        ProofError: an unknown level, a subject of another kind, a graph with unknown operations, or a
            candidate with an operation that has no meaning in a ring, or with parameters that nothing names.
        SizeError: a size is missing or contradictory, or a parameter of a module has another shape.

    >>> print(verify("x[N,C]; y[a,b] = x[a,d]*w[d,b]", {"N": 1, "C": 2}))
    yes, symbolic: ...
    >>> def mine(x):
    ...     return x @ (x.mT @ x) / x.shape[1]
    >>> print(verify(mine, "x[N,C]; y[a,b] = 1/N*x[a,c]*x[e,c]*x[e,b]", {"N": 5, "C": 2}, seed=1))
    yes, modular: mine as ...
    """
    first = arguments[0] if arguments else None
    # A text has brackets; any other string stands where sizes are expected, and is refused there.
    if isinstance(first, Spec) or (isinstance(first, str) and "[" in first):
        return _judged(subject, *arguments, **options)
    if "spec" in options:
        return _judged(subject, options.pop("spec"), *arguments, **options)
    return _verified(subject, *arguments, **options)


def _verified(
    subject: Any,
    sizes: Mapping[str, int] | None = None,
    level: str = "symbolic",
    *,
    objective: str = "forward",
    derivative: bool = False,
    dtypes: Sequence[str] = DTYPES,
    seed: int | None = None,
    budget: int | None = None,
) -> Verification:
    if level not in LEVELS:
        raise ProofError(f"unknown level {level!r}; there are {', '.join(LEVELS)}")
    # Imported here, since the module brings torch with it.
    from polyattn.verifying.verify_target import Subject

    found = Subject.of(subject, sizes, objective, derivative)
    # A fresh seed each time: a wrong graph that passed once will hardly pass again.
    seed = randbits(64) if seed is None else seed
    if level == "symbolic":
        from polyattn.verifying.symbolic import check_symbolic

        return check_symbolic(found, budget)
    if level == "modular":
        from polyattn.verifying.modular import check_modular

        return check_modular(found, seed, budget)
    from polyattn.verifying.numeric import check_numeric

    return check_numeric(found, dtypes, seed, budget)


def _judged(
    candidate: Any,
    spec: Spec | str,
    sizes: Mapping[str, int] | None = None,
    level: str = "modular",
    *,
    parameters: Mapping[str, str] | None = None,
    derivative: bool = False,
    dtype: Any = "float32",
    seed: int | None = None,
    budget: int | None = None,
) -> Verification:
    if level != "modular":
        raise ProofError(f'`level` is {level!r}, but a candidate is judged at the level "modular" only')
    if not isinstance(sizes, Mapping):
        raise SizeError(f"`sizes` must be a mapping of names to numbers, not {type(sizes).__name__}")
    if parameters is not None and not isinstance(parameters, Mapping):
        raise ProofError(f"`parameters` must be a mapping of tensors to names, not {type(parameters).__name__}")
    from polyattn.verifying.ring.judge import judge

    seed = randbits(64) if seed is None else seed
    spec = Spec(spec) if isinstance(spec, str) else spec
    return judge(
        candidate, spec, sizes, parameters=parameters, derivative=derivative, dtype=dtype, seed=seed, budget=budget
    )
