"""A bound for the rounding errors of a lowered graph, from the graph itself.

Running error analysis (Wilkinson; Higham, Accuracy and Stability of Numerical Algorithms, section 3.3): beside every
value stands a bound for its error, from the errors of its operands and the rounding of the operation itself, for any
order of the sums in a kernel. Sums accumulate in float32 at least, so in 16 bits a term of a sum counts for little.
Results may underflow; for overflowing results the bound is void.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, fx

from polyattn.errors import ProofError
from polyattn.kernels import attention
from polyattn.kernels.attention.naive import before
from polyattn.lowering.neighbourhoods import neighbourhood
from polyattn.lowering.pooling import window_extreme
from polyattn.lowering.pullbacks import L1_EPSILON, masked_softmax
from polyattn.lowering.shapes import choices, condition, expect_shape, identity, refined_mean, summable, widened
from polyattn.verifying.exact import interpreted, operation_name


@dataclass(frozen=True)
class Rounded:
    """A value in float64, its magnitude, and a bound for the error of each entry."""

    value: Tensor
    magnitude: Tensor
    error: Tensor

    @classmethod
    def exact(cls, value: Tensor) -> Rounded:
        return cls(value, value.abs(), torch.zeros_like(value))


@dataclass(frozen=True)
class Analysis:
    """Rounding errors in a precision, operation by operation.

    Attributes:
        roundoff: the unit roundoff.
        summand: number of roundings for one term of a sum.
        smallest: largest loss by an underflow.
        majorants: take the magnitude of a value as the same operations' result on absolute values: then the error is
            also a bound for other orders of the same products.
    """

    roundoff: float
    summand: float
    smallest: float
    majorants: bool = False

    @classmethod
    def of(cls, dtype: torch.dtype, majorants: bool = False) -> Analysis:
        facts = torch.finfo(dtype)
        # Kernels accumulate 16-bit sums in float32.
        accumulated = min(facts.eps, torch.finfo(torch.float32).eps)
        return cls(facts.eps / 2, accumulated / facts.eps, facts.smallest_normal * facts.eps / 2, majorants)

    def outputs(self, module: fx.GraphModule, tensors: Sequence[Rounded]) -> tuple[Rounded | None, ...]:
        """Return the outputs of a lowered graph with their errors.

        Raises:
            ProofError: the graph has an operation whose rounding is not known.
        """
        found = interpreted(module, tensors, lambda node, args, kwargs: self.apply(node, *args, **kwargs))
        return found if isinstance(found, tuple) else (found,)

    def apply(self, node: fx.Node, *args: Any, **kwargs: Any) -> Any:
        name = operation_name(node)
        if name in SHAPES:
            return _reshaped(node, *args, **kwargs)
        if name not in RULES:
            raise ProofError(f"the rounding of the graph's operation '{node.name}' ({name}) is not known")
        return RULES[name](self, *args, **kwargs)

    def roundings(self, count: float) -> float:
        """Return the relative error of `count` roundings in a row."""
        # Higham's gamma; beyond count * roundoff = 1 it bounds nothing.
        return count * self.roundoff / (1 - count * self.roundoff) if count * self.roundoff < 1 else float("inf")

    def rounded(self, value: Tensor, magnitude: Tensor, error: Tensor, times: float = 1, terms: float = 0) -> Rounded:
        """Return the result of an operation that sums `terms` numbers of total size `magnitude`, and rounds `times`."""
        size = magnitude if self.majorants else value.abs()
        # Minus infinity, the logarithm of a condition that does not hold, is exact.
        size, magnitude = (t.masked_fill(value == -torch.inf, 0.0) for t in (size, magnitude))
        own = self.roundings(terms * self.summand) * magnitude + self.roundings(times) * (size + error)
        return Rounded(value, size, error + own + self.smallest)

    def bilinear(self, product: Callable[[Tensor, Tensor], Tensor], a: Rounded, b: Rounded, terms: float) -> Rounded:
        # The errors' own product matters in low precisions.
        error = product(a.magnitude, b.error) + product(a.error, b.magnitude) + product(a.error, b.error)
        return self.rounded(product(a.value, b.value), product(a.magnitude, b.magnitude), error, terms=terms)

    def scaled(self, a: Rounded, factor: float) -> Rounded:
        if factor == 1:
            return a
        # Two roundings: that of the constant, and that of the product.
        return self.rounded(a.value * factor, a.magnitude * abs(factor), a.error * abs(factor), times=2)

    def matmul(self, a: Rounded, b: Rounded) -> Rounded:
        return self.bilinear(torch.matmul, a, b, a.value.shape[-1])

    def baddbmm(self, c: Rounded, a: Rounded, b: Rounded, *, beta: float = 1, alpha: float = 1) -> Rounded:
        product = self.scaled(self.matmul(a, b), alpha)
        return product if beta == 0 else self.add(self.scaled(c, beta), product)

    def mul(self, a: Rounded, b: Rounded | float) -> Rounded:
        if not isinstance(b, Rounded):
            return self.scaled(a, b)
        if _of_conditions(a) and _of_conditions(b):
            return Rounded.exact(a.value * b.value)
        return self.bilinear(torch.mul, a, b, 0)

    def add(self, a: Rounded, b: Rounded, *, alpha: float = 1) -> Rounded:
        b = self.scaled(b, alpha)
        return self.rounded(a.value + b.value, a.magnitude + b.magnitude, a.error + b.error)

    def sub(self, a: Rounded, b: Rounded, *, alpha: float = 1) -> Rounded:
        return self.add(a, b, alpha=-alpha)

    def neg(self, a: Rounded) -> Rounded:
        return Rounded(-a.value, a.magnitude, a.error)

    def double(self, a: Rounded) -> Rounded:
        """Return the argument: widening a value is exact, and the bound for later roundings stays valid."""
        return a

    def refined_mean(self, mean: Rounded, deviations: Rounded, axes: Any) -> Rounded:
        return self.add(mean, self.mean(deviations, axes))

    def type_as(self, a: Rounded, like: Rounded) -> Rounded:
        return self.rounded(a.value, a.magnitude, a.error)

    def sum(self, a: Rounded, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Rounded:
        value, magnitude, error = (t.sum(dim, keepdim=keepdim) for t in (a.value, a.magnitude, a.error))
        # Every entry of the result is a sum of this many terms.
        return self.rounded(value, magnitude, error, terms=a.value.numel() / max(value.numel(), 1))

    def mean(self, a: Rounded, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Rounded:
        total = self.sum(a, dim, keepdim)
        return self.scaled(total, total.value.numel() / a.value.numel())

    def relu(self, a: Rounded) -> Rounded:
        return Rounded(a.value.relu(), a.magnitude, a.error)

    def sigmoid(self, a: Rounded) -> Rounded:
        """Bound the sigmoid's error; its slope is at most 1/4."""
        value = a.value.sigmoid()
        return self.rounded(value, value, a.error / 4, times=4)

    def softmax(self, a: Rounded, dim: int) -> Rounded:
        """Bound the softmax's error: exponents off by e make a share off by at most exp(2e) - 1 of itself."""
        value, terms = a.value.softmax(dim), a.value.shape[dim] * self.summand
        largest = a.magnitude.amax(dim, keepdim=True) + a.error.amax(dim, keepdim=True)
        exponent = a.error.amax(dim, keepdim=True) + 2 * self.roundoff * largest
        # A share lies between 0 and 1, whatever the exponents.
        error = (value * torch.expm1(2 * exponent)).clamp_max(1)
        return self.rounded(value, value, error, times=terms + 6)

    def attention(
        self,
        q: Rounded,
        k: Rounded,
        v: Rounded,
        *masks: Rounded,
        scale: float = 1.0,
        where: Rounded | None = None,
        causal: bool = False,
    ) -> Rounded:
        """Bound attention by its definition; fused operators round a sum again each time its maximum grows."""
        alike = self.scaled(self.matmul(q, _transposed(k)), scale)
        for mask in masks:
            alike = self.add(alike, mask)
        if causal:
            where = Rounded.exact(before(q.value, k.value).double())
        if where is not None:
            alike = self.add(alike, self.log(where))
        result = self.matmul(self.masked_softmax(alike, -1), v)
        again = self.roundings(4 * k.value.shape[-2] * self.summand) * result.magnitude
        return Rounded(result.value, result.magnitude, result.error + again)

    def masked_softmax(self, a: Rounded, dim: int) -> Rounded:
        """Bound a softmax over chosen places: a row without places is 0, exactly."""
        none = (a.value == -torch.inf).all(dim, keepdim=True)
        found = self.softmax(Rounded(a.value.masked_fill(none, 0.0), a.magnitude, a.error), dim)
        return Rounded(*(t.masked_fill(none, 0.0) for t in (found.value, found.magnitude, found.error)))

    def reciprocal(self, a: Rounded) -> Rounded:
        return self.div(Rounded.exact(torch.ones_like(a.value)), a)

    def log(self, a: Rounded) -> Rounded:
        """Bound the logarithm's error; that of a condition is 0 or minus infinity, exactly."""
        value = a.value.log()
        # The slope grows towards 0: where the argument may be 0 the bound is infinite.
        error = torch.log1p(a.error / (a.value - a.error).clamp_min(0)).nan_to_num(0.0, posinf=torch.inf)
        return self.rounded(value, value.abs(), error, times=4)

    def neighbourhood(
        self,
        first: Rounded,
        second: Rounded | None,
        letters: str,
        relations: tuple[tuple[str, tuple[tuple[str, int], ...], int], ...],
        sizes: tuple[tuple[str, int], ...],
    ) -> Rounded:
        """Bound a product over neighbourhoods: each entry is a sum over the letters that the result does not have."""
        operands, _, output = letters.partition("->")
        lengths, tensors = dict(sizes), [t for t in (first, second) if t is not None]
        for tensor, own in zip(tensors, operands.split(","), strict=True):
            lengths |= dict(zip(own, tensor.value.shape, strict=True))
        terms = prod(n for i, n in lengths.items() if i not in output)
        terms += 1 / self.summand  # the part of each offset is rounded, and their sum is one of float32

        def of(a: Tensor, b: Tensor | None) -> Tensor:
            return neighbourhood(a, b, letters, relations, sizes)

        if second is not None:
            return self.bilinear(of, first, second, terms)
        return self.rounded(
            of(first.value, None), of(first.magnitude, None), of(first.error, None), times=0, terms=terms
        )

    def window_extreme(self, a: Rounded, function: str, *where: Any) -> Rounded:
        """Bound a maximum or minimum over windows: it is off by no more than the worst entry of the window."""
        worst = (window_extreme(t, "max", *where) for t in (a.magnitude, a.error))
        return Rounded(window_extreme(a.value, function, *where), *worst)

    def amax(self, a: Rounded, dim: Any) -> Rounded:
        return Rounded(a.value.amax(dim), a.magnitude.amax(dim), a.error.amax(dim))

    def abs(self, a: Rounded) -> Rounded:
        return Rounded(a.value.abs(), a.magnitude, a.error)

    def clamp_min(self, a: Rounded, least: float) -> Rounded:
        return Rounded(a.value.clamp_min(least), a.magnitude.clamp_min(least), a.error)

    def div(self, a: Rounded, b: Rounded) -> Rounded:
        value = a.value / b.value
        # The divisor may be as small as its value minus its error; at zero the bound is infinite.
        error = (a.error + value.abs() * b.error) / (b.value - b.error).clamp_min(0)
        return self.rounded(value, value.abs(), error)

    def softmax_backward(self, gradient: Rounded, result: Rounded, dim: tuple[int, ...]) -> Rounded:
        """Bound s * (g - Σ g s), also for kernels that compute g s - s Σ g s."""
        along = self.sum(self.mul(gradient, result), dim, keepdim=True)
        whole = self.mul(result, self.sub(gradient, along))
        size = result.magnitude * (gradient.magnitude + along.magnitude)
        return Rounded(whole.value, whole.magnitude, whole.error + self.roundings(3) * size)

    def relu_backward(self, gradient: Rounded, result: Rounded) -> Rounded:
        """Bound the gradient through ReLU; at a doubtful sign all of the gradient is in doubt."""
        value = torch.where(result.value > 0, gradient.value, 0.0)
        doubt = (result.error > 0) & (result.value <= result.error)
        error = gradient.error + torch.where(doubt, gradient.magnitude, 0.0)
        return Rounded(value, gradient.magnitude.expand_as(value), error)

    def sigmoid_backward(self, gradient: Rounded, result: Rounded) -> Rounded:
        one = Rounded.exact(torch.ones_like(result.value))
        return self.mul(self.mul(gradient, result), self.sub(one, result))

    def normalize_backward(self, gradient: Rounded, argument: Rounded, dim: tuple[int, ...]) -> Rounded:
        """Bound the gradient through `normalize`; a doubtful sign may change its share by twice."""
        norm = self.clamp_min(self.sum(self.abs(argument), dim, keepdim=True), L1_EPSILON)
        if bool((norm.value - norm.error <= L1_EPSILON).any()):
            raise ProofError("the rounding of the gradient of 'normalize' is not known where the norm is nearly 0")
        share = self.div(self.sum(self.mul(gradient, argument), dim, keepdim=True), norm)
        doubt = (argument.error > 0) & (argument.value.abs() <= argument.error)
        sign = Rounded(argument.value.sign(), torch.ones_like(argument.value), torch.where(doubt, 2.0, 0.0))
        return self.div(self.sub(gradient, self.mul(sign, share)), norm)

    def max_backward(self, gradient: Rounded, argument: Rounded, dim: tuple[int, ...]) -> Rounded:
        """Bound the gradient through max; at doubtful maxima all of the gradient is in doubt."""
        largest = argument.value == argument.value.amax(dim, keepdim=True)
        # An entry may be the largest unless some other one is certainly above it.
        above = (argument.value - argument.error).amax(dim, keepdim=True)
        maybe = argument.value + argument.error >= above
        count = largest.sum(dim, keepdim=True)
        # Exact ties are sure: the gradient is split among them, as torch does.
        exact = torch.where(maybe, argument.error, 0.0).amax(dim, keepdim=True) == 0
        sure = (maybe.sum(dim, keepdim=True) == count) & ((count == 1) | exact)
        value = torch.where(largest, gradient.value / count, 0.0)
        error = torch.where(maybe, gradient.error + torch.where(sure, 0.0, gradient.magnitude), 0.0)
        return self.rounded(value, value.abs(), error)

    def identity(self, like: Rounded, n: int) -> Rounded:
        return Rounded.exact(torch.eye(n, dtype=torch.float64))

    def condition(self, like: Rounded, *numbers: Any) -> Rounded:
        return Rounded.exact(condition(torch.empty(0, dtype=torch.float64), *numbers))

    def choices(self, like: Rounded, *numbers: Any) -> Rounded:
        return Rounded.exact(choices(torch.empty(0), *numbers).double())

    def new_ones(self, like: Rounded, shape: Sequence[int]) -> Rounded:
        return Rounded.exact(torch.ones(shape, dtype=torch.float64))

    def new_zeros(self, like: Rounded, shape: Sequence[int]) -> Rounded:
        return Rounded.exact(torch.zeros(shape, dtype=torch.float64))

    def size(self, a: Rounded, axis: int) -> int:
        return a.value.shape[axis]


def _of_conditions(a: Rounded) -> bool:
    """Return whether a tensor has zeros and ones without errors: its products and their logarithms are exact."""
    return not bool(a.error.any()) and bool(((a.value == 0) | (a.value == 1)).all())


def _transposed(a: Rounded) -> Rounded:
    return Rounded(a.value.mT, a.magnitude.mT, a.error.mT)


def _reshaped(node: fx.Node, first: Rounded, *args: Any, **kwargs: Any) -> Rounded:
    """Apply an operation that only moves numbers to the value, the magnitude and the error."""
    function = node.target if callable(node.target) else getattr(Tensor, str(node.target))
    rest = [a.value if isinstance(a, Rounded) else a for a in args]
    return Rounded(*(function(t, *rest, **kwargs) for t in (first.value, first.magnitude, first.error)))


SHAPES = frozenset(
    {
        "permute",
        "movedim",
        "clone",
        "flatten",
        "unflatten",
        "unsqueeze",
        "squeeze",
        "expand",
        "diagonal",
        "view_as",
        expect_shape.__name__,
    }
)
RULES: Mapping[str, Callable[..., Any]] = {
    "matmul": Analysis.matmul,
    "baddbmm": Analysis.baddbmm,
    "mul": Analysis.mul,
    "add": Analysis.add,
    "sub": Analysis.sub,
    "neg": Analysis.neg,
    "double": Analysis.double,
    widened.__name__: Analysis.double,
    summable.__name__: Analysis.double,
    "type_as": Analysis.type_as,
    refined_mean.__name__: Analysis.refined_mean,
    "sum": Analysis.sum,
    "mean": Analysis.mean,
    "relu": Analysis.relu,
    "sigmoid": Analysis.sigmoid,
    "softmax": Analysis.softmax,
    masked_softmax.__name__: Analysis.masked_softmax,
    "log": Analysis.log,
    "reciprocal": Analysis.reciprocal,
    neighbourhood.__name__: Analysis.neighbourhood,
    window_extreme.__name__: Analysis.window_extreme,
    attention.__name__: Analysis.attention,
    "amax": Analysis.amax,
    "abs": Analysis.abs,
    "clamp_min": Analysis.clamp_min,
    "div": Analysis.div,
    "softmax_backward": Analysis.softmax_backward,
    "relu_backward": Analysis.relu_backward,
    "sigmoid_backward": Analysis.sigmoid_backward,
    "normalize_backward": Analysis.normalize_backward,
    "max_backward": Analysis.max_backward,
    identity.__name__: Analysis.identity,
    condition.__name__: Analysis.condition,
    choices.__name__: Analysis.choices,
    "new_ones": Analysis.new_ones,
    "new_zeros": Analysis.new_zeros,
    "size": Analysis.size,
}
