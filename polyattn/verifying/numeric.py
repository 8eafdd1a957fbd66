"""The numeric level: the graphs in floating point, each error against the bound for the roundings in it.

The tensors are random numbers that the precision at hand holds exactly, so the definition has an exact value there:
the monomials in integer arithmetic. Functions have values that no arithmetic holds exactly: there the reference is an
interval of 30 digits that certainly has the exact value in it, and an entry agrees if all of the interval is within the
bound, differs if none of it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from math import isfinite, prod
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from polyattn.errors import BudgetError, NotPolynomialError, ProofError
from polyattn.proving.enclosure import DIGITS
from polyattn.proving.evaluation import EXACT, enclosing
from polyattn.proving.interval import Interval, Number
from polyattn.verifying.modular import DEFAULT_BUDGET, definition
from polyattn.verifying.rounding import Analysis, Rounded
from polyattn.verifying.verification import Check, Difference, Verification
from polyattn.verifying.verify_target import BATCH, Passes, Subject, running

FLOATS = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}
"""The bits of a number's significand."""


def check_numeric(subject: Subject, dtypes: Sequence[Any], seed: int, budget: int | None) -> Verification:
    """Check a subject in floating point; see `verify`."""
    names = [str(d).removeprefix("torch.") for d in dtypes]
    if not names:
        raise ProofError(f"`dtypes` is empty, so nothing would be checked; there are {', '.join(FLOATS)}")
    for name in names:
        if name not in FLOATS:
            raise ProofError(f"unknown precision {name!r}; there are {', '.join(FLOATS)}")
    if subject.derivative and not subject.spec.is_polynomial:
        raise NotPolynomialError("the gradients of functions have no specification that they could be compared with")
    subject.require_budget(DEFAULT_BUDGET if budget is None else budget)
    random = Random(seed)
    reference = "exact arithmetic" if subject.spec.is_polynomial else f"intervals of {DIGITS[0]} digits"
    checks = tuple(check for name in names for check in _Numbers(subject, name, random).checks())
    return Verification(
        "numeric",
        str(subject.spec),
        tuple(sorted(subject.sizes.items())),
        subject.words,
        f"on random numbers from -1 to 1, a batch of {BATCH}, against {reference} and the bound for rounding errors",
        checks,
        seed=seed,
    )


class _Numbers:
    """Random tensors of one precision, and the values of the graphs and the definition at them."""

    def __init__(self, subject: Subject, dtype: str, random: Random):
        self.subject, self.dtype = subject, dtype
        self.torch_dtype: torch.dtype = getattr(torch, dtype)
        # Integers below 2^p over 2^p are exact in a significand of p bits.
        self.scale = 2 ** FLOATS[dtype]

        def integers(_: str, shape: tuple[int, ...]) -> np.ndarray:
            array = np.empty(shape, dtype=object)
            for place in np.ndindex(*shape):
                array[place] = random.randrange(1 - self.scale, self.scale)
            return array

        self.integers = subject.fill(integers)
        self.tensors = {t: torch.tensor(np.asarray(a / self.scale, dtype=np.float64)) for t, a in self.integers.items()}

    def checks(self) -> Iterator[Check]:
        want = self.reference()
        for passes in self.subject.passes:
            found: list[Check] = []
            with running() as failure:
                have, bounds = self.graphs(passes)
                for name, array in have.items():
                    manner = passes.manner(name != self.subject.spec.output, f"in {self.dtype}")
                    found.append(_check(name, manner, array, want[name], bounds[name]))
            yield from found
            if failure:
                yield Check(self.subject.spec.output, passes.manner(False, f"in {self.dtype}"), failure=failure[0])
        if self.subject.derivative and self.dtype == "float64":
            forward, words = self.subject.differentiated
            gradients: list[tuple[str, Tensor, Tensor]] = []
            with running() as failure:
                gradients = list(self.autograd(forward))
            for name, array, bound in gradients:
                yield _check(name, f"{words} in {self.dtype}", array, want[name], bound)
            if failure:
                yield Check("the gradients", f"{words} in {self.dtype}", failure=failure[0])

    def reference(self) -> dict[str, np.ndarray]:
        """Return the output and gradients by definition, as rational numbers or, of functions, as intervals.

        Raises:
            BudgetError: there are too many intervals.
        """
        if self.subject.spec.is_polynomial:
            return definition(self.subject, self.integers, EXACT, Fraction(1, self.scale))
        unit = Fraction(1, self.scale)
        rationals = {t: np.asarray(a * unit, dtype=object) for t, a in self.integers.items()}
        for digits in DIGITS:
            try:
                return definition(self.subject, rationals, enclosing(digits))
            except ArithmeticError:  # an interval without bound
                continue
            except BudgetError as error:
                raise BudgetError(f"the exact values of functions take too long at these sizes: {error}") from None
        raise BudgetError(f"intervals of {DIGITS[-1]} digits do not bound the exact values of these functions")

    def arguments(self) -> list[Rounded]:
        return [Rounded.exact(self.tensors[t]) for t in self.subject.tensors]

    def graphs(self, passes: Passes) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the tensors that graphs compute in this precision, and the bounds of their errors."""
        subject, analysis = self.subject, Analysis.of(self.torch_dtype)
        tensors = {t: a.to(self.torch_dtype) for t, a in self.tensors.items()}
        arguments = [tensors[t] for t in subject.tensors]
        output = passes.forward(*arguments)
        rounded = analysis.outputs(passes.forward, self.arguments())
        named = {subject.spec.output: subject.spec.output}
        if passes.backward is None:
            values = [output]
        else:
            output, *kept = output
            seed = subject.plan.seed
            values = [output, *passes.backward(tensors[seed], *arguments, *kept)]
            first, *rest = rounded
            # The backward pass gets the kept values with the errors that they have by then.
            given = [Rounded.exact(self.tensors[seed]), *self.arguments(), *(r for r in rest if r is not None)]
            rounded = (first, *analysis.outputs(passes.backward, given))
            named |= {name: tensor for tensor, name in subject.gradients.items()}
        have, bounds = {}, {}
        for (name, tensor), value, found in zip(named.items(), values, rounded, strict=True):
            shape = subject.shape(tensor, batch=True)
            have[name] = torch.zeros(shape) if value is None else value
            bounds[name] = torch.zeros(shape) if found is None else found.error
        return have, bounds

    def autograd(self, forward: fx.GraphModule) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Yield the gradients through a forward graph, and their bounds.

        The gradient of the majorant is a majorant of the gradient. Each of its products meets the roundings of the
        output's products and those of the operations' own backward passes.
        """
        subject, seed = self.subject, self.tensors[self.subject.plan.seed]
        tensors = [self.tensors[t].clone().requires_grad_() for t in subject.tensors]
        gradients = _gradients(forward(*tensors), tensors, seed)
        sizes = [t.detach().abs().requires_grad_() for t in tensors]
        analysis = Analysis.of(torch.float64, majorants=True)
        zero = [torch.zeros_like(s) for s in sizes]
        (found,) = analysis.outputs(forward, list(map(Rounded, self.tensors.values(), sizes, zero)))
        assert found is not None
        majorants = _gradients(found.magnitude, sizes, seed.abs())
        # No product of tensors reaches an entry of magnitude 0, such as one off a diagonal: it has no gradient.
        reached = found.magnitude > 0
        relative = (found.error[reached] / found.magnitude[reached]).max().item() if reached.any() else 0.0
        relative += analysis.roundings(_backward_roundings(forward, [t.detach() for t in tensors]))
        for tensor, gradient, majorant in zip(subject.tensors, gradients, majorants, strict=True):
            none = torch.zeros(subject.shape(tensor, batch=True), dtype=torch.float64)
            bound = none if majorant is None else 2 * relative * majorant
            yield subject.gradients[tensor], none if gradient is None else gradient, bound


def _gradients(output: Tensor, tensors: Sequence[Tensor], seed: Tensor) -> Sequence[Tensor | None]:
    """Return the gradients, None for the tensors that the output does not depend on."""
    if not output.requires_grad:
        return [None] * len(tensors)
    return torch.autograd.grad(output, tensors, seed, allow_unused=True)


def _check(name: str, manner: str, have: Any, want: np.ndarray, bound: Tensor) -> Check:
    if not isinstance(have, Tensor):
        return Check(name, manner, failure=f"the graph returns a {type(have).__name__} for {name}, not a tensor")
    if tuple(have.shape) != want.shape:
        return Check(name, manner, failure=f"the graph's {name} has shape {tuple(have.shape)}, not {want.shape}")
    found, limits = have.detach().double().numpy(), bound.detach().double().numpy()
    worst, wrong, undecided = None, [], 0
    for place in np.ndindex(*want.shape):
        if not np.isfinite(found[place]):  # the exact value is: without this, no bound would excuse it
            wrong.append(place)
            continue
        least, most = _distance(float(found[place]), want.item(place))
        limit = float(limits[place])
        if not isfinite(limit) or least <= limit < most:
            undecided += 1
            continue
        if least > limit:
            wrong.append(place)
        error = float(most)
        worst = max(worst or (-1.0, 0.0, 0.0), (error / limit if limit else float(error > 0), error, limit))
    difference = None
    if wrong:
        values = f"{found[wrong[0]]:.17g}", _shown(want.item(wrong[0]))
        difference = Difference(name, wrong[0], *values, len(wrong))
    decided = prod(want.shape) - undecided
    if worst is None:
        return Check(name, manner, decided, undecided=undecided, difference=difference)
    _, error, limit = worst
    detail = f"largest error {error:.2g} where the bound is {limit:.2g}"
    return Check(name, manner, decided, detail, undecided, difference=difference, error=error, bound=limit)


def _distance(found: float, want: Number) -> tuple[Any, Any]:
    """Return the least and the largest distance that a number may have from the exact value; numbers that compare."""
    difference = abs(want - Fraction(found))
    return (difference.low, difference.high) if isinstance(difference, Interval) else (difference, difference)


def _shown(want: Number) -> str:
    return want.text() if isinstance(want, Interval) else f"{float(want):.17g}"


def _backward_roundings(module: torch.fx.GraphModule, tensors: Sequence[Tensor]) -> float:
    """Return a bound for the roundings added by the operations' own backward passes, one after another.

    Each product in an operation is one term of one entry of each operand's gradient: an operation of P products sums
    P / n terms for a gradient of n entries. Then the gradient may be scaled and added to others.
    """
    counts: list[float] = []

    class Counting(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            operands = [a for a in self.fetch_args_kwargs_from_env(n)[0] if isinstance(a, Tensor)]
            result = super().run_node(n)
            if isinstance(result, Tensor) and operands:
                # Of these operations every entry of the result is a sum of `inner` products.
                inner = operands[-1].shape[-2] if n.target in (torch.matmul, torch.baddbmm) else 1
                counts.append(max(result.numel() * inner / max(a.numel(), 1) for a in operands) + 3)
            return result

    Counting(module).run(*tensors)
    return sum(counts)
