"""The meaning of torch's operations in a ring: one row each, by the operation's name in `torch.ops.aten`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from polyattn.errors import ProofError
from polyattn.verifying.ring.ring import Ring
from polyattn.verifying.ring.size import Size
from polyattn.verifying.ring.tensor import RingTensor

OPERATIONS: dict[str, Callable[..., Any]] = {}
WRITES: dict[str, Callable[..., Any]] = {}
"""Operations in place that are not an operation of their own with an underscore."""


def row(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        OPERATIONS.update(dict.fromkeys(names, function))
        return function

    return enter


def size_of(operand: Any) -> Size:
    if isinstance(operand, RingTensor):
        return operand.state.size
    return Size.float(float(operand))


def _infinite(*operands: Any) -> Tensor | None:
    masks = [o.infinite for o in operands if isinstance(o, RingTensor) and o.infinite is not None]
    if not masks:
        return None
    result = masks[0]
    for mask in masks[1:]:
        result = result | mask
    return result


@row("add")
def add(ring: Ring, a: Any, b: Any, *, alpha: Any = 1) -> RingTensor:
    a, b = ring.carried(a), ring.carried(b)
    if alpha != 1:
        b = times(ring, b, alpha) if isinstance(b, RingTensor) else b * alpha
    if isinstance(b, float) and b == -math.inf:
        return _fill(ring, a, torch.ones(a.shape, dtype=torch.bool), b)
    return ring.compute(
        (a, b), lambda plane, x, y: plane.add(x, y), size_of(a) + size_of(b), torch.add, _infinite(a, b)
    )


@row("sub")
def subtract(ring: Ring, a: Any, b: Any, *, alpha: Any = 1) -> RingTensor:
    ring.refuse_infinite("the negative", b)
    return add(ring, a, b, alpha=-alpha)


@row("rsub")
def _subtract_from(ring: Ring, a: Any, b: Any, alpha: Any = 1) -> RingTensor:
    return add(ring, times(ring, a, -alpha), b)


@row("neg")
def negative(ring: Ring, a: Any) -> RingTensor:
    return times(ring, a, -1)


@row("mul")
def times(ring: Ring, a: Any, b: Any) -> RingTensor:
    a, b = ring.carried(a), ring.carried(b)
    for left, right in ((a, b), (b, a)):
        if isinstance(right, int | float) and not right > 0:
            ring.refuse_infinite("a product", left)
        if isinstance(right, RingTensor):
            ring.refuse_infinite("a product", left)
    return ring.compute(
        (a, b), lambda plane, x, y: plane.times(x, y), size_of(a) * size_of(b), torch.mul, _infinite(a, b)
    )


@row("reciprocal")
def inverse(ring: Ring, a: RingTensor) -> RingTensor:
    ring.refuse_infinite("the inverse", a)
    return ring.compute((a,), lambda plane, x: plane.inverse(x), size_of(a).inverse(), torch.reciprocal)


@row("div")
def divide(ring: Ring, a: Any, b: Any, *, rounding_mode: str | None = None) -> RingTensor:
    if rounding_mode is not None:
        raise ProofError("`candidate` rounds a quotient, which has no meaning in a ring")
    a, b = ring.carried(a), ring.carried(b)
    if not isinstance(b, RingTensor):
        if b == 0:
            raise ProofError("`candidate` divides by 0")
        return ring.compute(
            (a,),
            lambda plane, x: plane.times(x, pow(plane.number(b), -1, plane.field.prime)),
            # The number is one denominator of all entries.
            size_of(a) * Size(0, 0, size_of(b).bits) * Size(degree=size_of(b).degree, bits=size_of(b).common),
            lambda x: x / b,
            _infinite(a),
        )
    ring.refuse_infinite("a quotient", b)
    return times(ring, inverse(ring, b), a)


@row("pow")
def _power(ring: Ring, a: Any, exponent: Any) -> RingTensor:
    if isinstance(exponent, RingTensor) or not isinstance(a, RingTensor):
        raise ProofError("`candidate` raises a number to a variable power, which has no meaning in a ring")
    if float(exponent) == int(exponent):
        ring.refuse_infinite("a power", a)
        whole = int(exponent)
        size = Size()
        for _ in range(abs(whole)):
            size = size * (size_of(a) if whole > 0 else size_of(a).inverse())
        return ring.compute((a,), lambda plane, x: plane.power(x, whole), size, lambda x: x**whole)
    if float(2 * exponent) == int(2 * exponent):
        return _power(ring, OPERATIONS["sqrt"](ring, a), int(2 * exponent))
    raise ProofError(f"`candidate` takes the power {exponent}, which has no meaning in a ring")


@row("square")
def _square(ring: Ring, a: RingTensor) -> RingTensor:
    return times(ring, a, a)


@row("mm", "bmm", "mv", "dot", "matmul")
def _product(ring: Ring, a: Any, b: Any) -> RingTensor:
    a, b = ring.carried(a), ring.carried(b)
    ring.refuse_infinite("a product", a, b)
    terms = a.shape[-1]
    return ring.compute(
        (a, b),
        lambda plane, x, y: plane.bilinear(torch.matmul, x, y, terms),
        (size_of(a) * size_of(b)).summed(terms),
        torch.matmul,
    )


@row("addmm", "baddbmm", "addmv", "addbmm")
def _product_and_sum(ring: Ring, bias: Any, a: Any, b: Any, *, beta: Any = 1, alpha: Any = 1) -> RingTensor:
    product = _product(ring, a, b)
    product = product if alpha == 1 else times(ring, product, alpha)
    if beta == 0:
        return product
    return add(ring, product, bias if beta == 1 else times(ring, ring.carried(bias), beta))


@row("addcmul")
def _add_product(ring: Ring, total: Any, a: Any, b: Any, *, value: Any = 1) -> RingTensor:
    return add(ring, total, times(ring, times(ring, a, b), value))


@row("sum")
def total(ring: Ring, a: RingTensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> RingTensor:
    ring.refuse_infinite("a sum", a)
    dims = dims_of(a, dim)
    terms = prod(a.shape[d] for d in dims)
    return ring.compute(
        (a,),
        lambda plane, x: plane.sum(x, dims, keepdim),
        size_of(a).summed(terms),
        lambda x: x.sum(dims, keepdim=keepdim) if dims else x.clone(),
    )


@row("mean")
def mean(ring: Ring, a: RingTensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> RingTensor:
    return divide(ring, total(ring, a, dim, keepdim), prod(a.shape[d] for d in dims_of(a, dim)))


@row("cumsum")
def _running_sum(ring: Ring, a: RingTensor, dim: int, *, dtype: Any = None) -> RingTensor:
    ring.refuse_infinite("a sum", a)
    return ring.compute(
        (a,), lambda plane, x: plane.cumsum(x, dim), size_of(a).summed(a.shape[dim]), lambda x: x.cumsum(dim)
    )


@row("prod")
def _product_along(
    ring: Ring, a: RingTensor, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None
) -> Any:
    flat = a if dim is not None else torch.ops.aten.view(a, [-1])
    with ring:
        parts = flat.unbind(0 if dim is None else dim)
        result = parts[0]
        for part in parts[1:]:
            result = result * part
        return result.unsqueeze(dim) if keepdim and dim is not None else result


@row("convolution")
def _convolution(
    ring: Ring, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: Any,
    output_padding: Any, groups: int,
) -> RingTensor:  # fmt: skip
    x, weight = ring.carried(x), ring.carried(weight)
    ring.refuse_infinite("a convolution", x, weight)
    terms = prod(weight.shape[1:]) if not transposed else weight.shape[0] * prod(weight.shape[2:])

    def convolve(a: Tensor, b: Tensor) -> Tensor:
        return torch.ops.aten.convolution(a, b, None, stride, padding, dilation, transposed, output_padding, groups)

    result = ring.compute(
        (x, weight),
        lambda plane, a, b: plane.bilinear(convolve, a, b, terms),
        (size_of(x) * size_of(weight)).summed(terms),
        convolve,
    )
    if bias is None:
        return result
    with ring:
        return result + ring.carried(bias).reshape(-1, *[1] * (x.dim() - 2))


@row("avg_pool2d", "avg_pool1d", "avg_pool3d")
def _average_pool(
    ring: Ring, x: RingTensor, kernel: Any, stride: Any = (), padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> RingTensor:  # fmt: skip
    if ceil_mode or (not count_include_pad and any(_each(padding, 1))):
        raise ProofError("`candidate` averages over windows with incomplete borders, which is not followed here")
    dims = x.dim() - 2
    kernel = _each(kernel, dims)
    count = divisor_override or prod(kernel)
    weight = ring.lift(torch.ones(x.shape[1], 1, *kernel))
    summed = _convolution(
        ring, x, weight, None, list(_each(stride or kernel, dims)), list(_each(padding, dims)), [1] * dims, False,
        [0] * dims, x.shape[1],
    )  # fmt: skip
    return divide(ring, summed, count)


@row("where")
def _where(ring: Ring, condition: Any, a: Any, b: Any) -> RingTensor:
    if isinstance(condition, RingTensor):
        raise ProofError("`candidate` chooses by values, which a ring does not order")
    a, b = (ring.lift(torch.tensor(float(v))) if not isinstance(v, Tensor) else ring.carried(v) for v in (a, b))
    return ring.compute(
        (a, b), lambda plane, x, y: torch.where(condition, x, y), size_of(a).join(size_of(b)),
        lambda x, y: torch.where(condition, x, y), torch.where(condition, a.masked, b.masked),
    )  # fmt: skip


@row("masked_fill")
def _fill(ring: Ring, a: RingTensor, mask: Tensor, value: Any) -> RingTensor:
    return _where(ring, mask, _tensor(value), a)


@row("_to_copy")
def _cast(ring: Ring, a: RingTensor, *, dtype: torch.dtype | None = None, **_: Any) -> Any:
    """Casts between floats change nothing here: rounding is not judged."""
    dtype = dtype or a.dtype
    if not dtype.is_floating_point:
        if (reals := a.reals) is not None:
            return reals.to(dtype)
        raise ProofError(f"`candidate` casts values to {dtype}, which has no meaning in a ring")
    powers, numbers = a.exponents, a.reals
    return RingTensor(
        a.values.clone(),
        None if powers is None else powers.clone(),
        None if numbers is None else numbers.clone(),
        dtype,
        a.state.size,
        a.infinite,
    )


@row("_local_scalar_dense", "item", "is_nonzero")
def _read(ring: Ring, a: RingTensor) -> float:
    if (reals := a.reals) is not None:
        return reals.item()
    raise ProofError("`candidate` reads a value into Python (item, bool, float), which a ring cannot give")


WRITES |= {
    "copy_": lambda ring, target, source, non_blocking=False: _expanded(ring, ring.carried(source), target),
    "fill_": lambda ring, target, value: _expanded(ring, ring.carried(_tensor(value)), target),
    "zero_": lambda ring, target: ring.lift(torch.zeros(target.shape)),
}


def _tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64)


def _expanded(ring: Ring, source: RingTensor, target: RingTensor) -> Any:
    with ring:
        return source.expand(target.shape)


def _put(ring: Ring, target: RingTensor, indices: Sequence[Any], values: Any, accumulate: bool = False) -> RingTensor:
    values = ring.carried(values)
    if accumulate:
        ring.refuse_infinite("a sum", target, values)
    size = (
        size_of(target) + size_of(values).summed(values.numel())
        if accumulate
        else size_of(target).join(size_of(values))
    )

    def put(plane: Any, x: Tensor, v: Tensor) -> Tensor:
        result = torch.ops.aten.index_put(x, indices, v, accumulate)
        return plane.add(result, 0) if plane is not None else result

    masked = torch.ops.aten.index_put(target.masked, indices, values.masked)
    return ring.compute((target, values), put, size, lambda x, v: put(None, x, v), masked)


OPERATIONS["index_put"] = _put


def dims_of(a: RingTensor, dim: Any) -> list[int]:
    if dim is None or (isinstance(dim, list | tuple) and not dim):
        return list(range(a.dim()))
    return sorted(d % max(a.dim(), 1) for d in ([dim] if isinstance(dim, int) else dim)) if a.dim() else []


def _each(value: Any, dims: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * dims if len(values) == 1 else values
