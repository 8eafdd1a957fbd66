"""`verify`: the lowered graph against the definition. Imports torch only when called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from secrets import randbits
from typing import Any

from polyattn.errors import ProofError
from polyattn.verifying.verification import Verification

LEVELS = ("symbolic", "modular", "numeric")
DTYPES = ("float64", "float32", "bfloat16")


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
) -> Verification:
    """Check that the executed graph computes the specification: `lower(plan(spec, sizes, objective))`, not its text.

    - "symbolic": the graph is run on symbols; every entry of the output, as a polynomial in them, must equal the entry
      by the explicit interaction tensor of order 2(D+1) (Poly-NL, Eq. 4), coefficient for coefficient. Small sizes.
    - "modular": the graph is run in exact arithmetic modulo a random prime, at a random point, on a batch of two,
      against the expanded monomials, contracted in another order by other code. A wrong graph passes with a chance
      (Schwartz and Zippel) of at most 2^-100, which the result states.
    - "numeric": the graph in floating point against exact arithmetic (with functions: against intervals that enclose
      the exact values), the error compared with a bound that adds up what each operation may round. Not a proof, but
      of the torch kernels. Entries whose error has no bound are undecided, and the result is not true.

    A lowered graph is checked as it is given, also after changes. Of a forward graph with `derivative=True` these are
    its output and, at the numeric level, the gradients of autograd through it; the plan's own passes are checked
    beside it, and the result says which check is of which graph.

    Args:
        subject: a specification or its text, a plan, a lowered graph, or a module with a specification.
        sizes: a number for every size; not needed for a plan or a graph.
        objective: the objective of the plan, for a specification.
        derivative: check the gradients by all inputs and parameters as well: the planned backward pass (of the
            objective "training", if the subject comes without one) and, at the numeric level, autograd through the
            graph.
        dtypes: at the numeric level, the precisions.
        seed: seed of the random tensors; default a fresh one. The result has it.
        budget: at the symbolic level the largest number of products of monomials (default 2 million), else of
            multiply-accumulates of the graph (default 50 million).

    Returns:
        A result that is true if all entries agree, prints as a paragraph, and has the first difference.

    Raises:
        NotPolynomialError: the specification applies functions, at the first two levels.
        BudgetError: the check would take too long, such as intervals for functions at large sizes.
        ProofError: an unknown level, a subject that is nothing of the kind, or a graph with unknown operations.
        SizeError: a size is missing or contradictory.

    >>> print(verify("x[N,C]; y[a,b] = x[a,d]*w[d,b]", {"N": 1, "C": 2}))
    yes, symbolic: ...
    """
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
