"""The numeric level: the graphs in floating point, each error against the bound for the roundings in it.

The tensors are random numbers exactly representable in the precision at hand, so the definition has an exact value
there: the monomials in integer arithmetic. With functions, whose values are irrational, the reference is
`Spec.evaluate` in float64, and its own rounding is added to the bound.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from math import prod
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from polyattn.errors import NotPolynomialError, ProofError
from polyattn.language import value_of
from polyattn.lowering import lower, plan
from polyattn.proving.evaluation import EXACT
from polyattn.verifying.modular import DEFAULT_BUDGET, definition
from polyattn.verifying.rounding import Analysis, Rounded
from polyattn.verifying.verification import Check, Difference, Verification
from polyattn.verifying.verify_target import BATCH, Subject, running

FLOATS = {"float64": 53, "float32": 24, "float16": 11, "bfloat16": 8}
"""The bits of a number's significand."""


def check_numeric(subject: Subject, dtypes: Sequence[Any], seed: int, budget: int | None) -> Verification:
    """Check a subject in floating point; see `verify`."""
    names = [str(d).removeprefix("torch.") for d in dtypes]
    for name in names:
        if name not in FLOATS:
            raise ProofError(f"unknown precision {name!r}; there are {', '.join(FLOATS)}")
    if subject.derivative and not subject.spec.is_polynomial:
        raise NotPolynomialError("the gradients of functions have no specification that they could be compared with")
    subject.require_budget(DEFAULT_BUDGET if budget is None else budget)
    random = Random(seed)
    exact = subject.spec.is_polynomial
    reference = "exact arithmetic" if exact else "Spec.evaluate in float64"
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
        want, slack = self.reference()
        found: list[Check] = []
        with running() as failure:
            have, bounds = self.graph()
            for name, array in have.items():
                found.append(_check(name, f"in {self.dtype}", array, want[name], bounds[name] + slack))
            # autograd once, in the precision whose bound is tightest.
            if self.subject.derivative and self.dtype == "float64":
                for name, array, bound in self.autograd():
                    found.append(_check(name, f"by autograd in {self.dtype}", array, want[name], bound))
        yield from found
        if failure:
            yield Check(self.subject.spec.output, f"in {self.dtype}", failure=failure[0])

    def reference(self) -> tuple[dict[str, np.ndarray], Tensor | float]:
        """Return the output and gradients by definition, and the uncertainty of these values."""
        if self.subject.spec.is_polynomial:
            # Integers and one power of two at the end are much faster than fractions.
            return definition(self.subject, self.integers, EXACT, Fraction(1, self.scale)), 0.0
        spec = self.subject.spec
        samples = []
        for k in range(BATCH):
            arrays = {t: (a[k] if t in spec.inputs else a).numpy() for t, a in self.tensors.items()}
            with np.errstate(over="ignore"):
                samples.append(spec.evaluate(arrays, self.subject.sizes))
        return {spec.output: np.stack(samples)}, self.slack()

    def slack(self) -> Tensor:
        """Return a bound for the error of `Spec.evaluate`: that of the text's own graph, with each sum as long as the
        longest."""
        spec, sizes = self.subject.spec, self.subject.sizes
        written = lower(plan(spec, sizes, "as_written", batch=BATCH))
        # Majorants, because `Spec.evaluate` may take the products in another order.
        (found,) = Analysis.of(torch.float64, majorants=True).outputs(written, self.arguments())
        assert found is not None
        longest = max(value_of((a for atoms in d.values() for a in atoms), sizes) for d in spec.resolved.index_sizes)
        return (2 + longest) * found.error

    def arguments(self) -> list[Rounded]:
        return [Rounded.exact(self.tensors[t]) for t in self.subject.tensors]

    def graph(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the graphs' values in their precision, and bounds of their errors."""
        subject, analysis = self.subject, Analysis.of(self.torch_dtype)
        tensors = {t: a.to(self.torch_dtype) for t, a in self.tensors.items()}
        arguments = [tensors[t] for t in subject.tensors]
        output = subject.forward(*arguments)
        rounded = analysis.outputs(subject.forward, self.arguments())
        named = {subject.spec.output: subject.spec.output}
        if subject.backward is None:
            values = [output]
        else:
            output, *kept = output
            seed = subject.plan.seed
            values = [output, *subject.backward(tensors[seed], *arguments, *kept)]
            first, *rest = rounded
            # The backward pass gets the kept values with the errors that they have by then.
            given = [Rounded.exact(self.tensors[seed]), *self.arguments(), *(r for r in rest if r is not None)]
            rounded = (first, *analysis.outputs(subject.backward, given))
            named |= {name: tensor for tensor, name in subject.gradients.items()}
        have, bounds = {}, {}
        for (name, tensor), value, found in zip(named.items(), values, rounded, strict=True):
            shape = subject.shape(tensor, batch=True)
            have[name] = torch.zeros(shape) if value is None else value
            bounds[name] = torch.zeros(shape) if found is None else found.error
        return have, bounds

    def autograd(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """Yield the gradients through the forward graph, and their bounds.

        The gradient of the majorant is a majorant of the gradient. Each of its products meets the roundings of the
        output's products and those of the operations' own backward passes.
        """
        subject, seed = self.subject, self.tensors[self.subject.plan.seed]
        forward = lower(subject.plan)
        tensors = [self.tensors[t].clone().requires_grad_() for t in subject.tensors]
        gradients = torch.autograd.grad(forward(*tensors), tensors, seed, allow_unused=True)
        sizes = [t.detach().abs().requires_grad_() for t in tensors]
        analysis = Analysis.of(torch.float64, majorants=True)
        zero = [torch.zeros_like(s) for s in sizes]
        (found,) = analysis.outputs(forward, list(map(Rounded, self.tensors.values(), sizes, zero)))
        assert found is not None
        majorants = torch.autograd.grad(found.magnitude, sizes, seed.abs(), allow_unused=True)
        relative = (found.error / found.magnitude).nan_to_num(0).max().item()
        relative += analysis.roundings(_backward_roundings(forward, [t.detach() for t in tensors]))
        for tensor, gradient, majorant in zip(subject.tensors, gradients, majorants, strict=True):
            none = torch.zeros(subject.shape(tensor, batch=True), dtype=torch.float64)
            bound = none if majorant is None else 2 * relative * majorant
            yield subject.gradients[tensor], none if gradient is None else gradient, bound


def _check(name: str, manner: str, have: Tensor, want: np.ndarray, bound: Tensor) -> Check:
    if tuple(have.shape) != want.shape:
        return Check(name, manner, failure=f"the graph's {name} has shape {tuple(have.shape)}, not {want.shape}")
    # A bound that is not a number says nothing: infinity.
    found, limits = have.detach().double().numpy(), bound.detach().double().nan_to_num(torch.inf, torch.inf).numpy()
    worst, wrong = (-1.0, 0.0, 0.0), []
    for place in np.ndindex(*want.shape):
        error, limit = _distance(found[place], want[place]), float(limits[place])
        worst = max(worst, (error / limit if limit else float(error > 0), error, limit))
        # Written so that a NaN counts as wrong.
        if not error <= limit:
            wrong.append(place)
    _, error, limit = worst
    difference = None
    if wrong:
        values = f"{found[wrong[0]]:.17g}", f"{float(want[wrong[0]]):.17g}"
        difference = Difference(name, wrong[0], *values, len(wrong))
    detail = f"largest error {error:.2g} where the bound is {limit:.2g}"
    if unbounded := int(np.isinf(limits).sum()):
        detail += f" ({unbounded} have no bound)"
    return Check(name, manner, prod(want.shape), detail, difference=difference, error=error, bound=limit)


def _distance(found: Any, want: Any) -> float:
    """Return the exact distance; infinite if a value is not finite."""
    if not np.isfinite(found):
        return float("inf")
    return float(abs(Fraction(float(found)) - Fraction(want)))


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
