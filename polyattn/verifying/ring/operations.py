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


def _row(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def enter(function: Callable[..., Any]) -> Callable[..., Any]:
        OPERATIONS.update(dict.fromkeys(names, function))
        return function

    return enter


def _size(operand: Any) -> Size:
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


@_row("add")
def _add(ring: Ring, a: Any, b: Any, *, alpha: Any = 1) -> RingTensor:
    a, b = ring.carried(a), ring.carried(b)
    if alpha != 1:
        b = _times(ring, b, alpha) if isinstance(b, RingTensor) else b * alpha
    if isinstance(b, float) and b == -math.inf:
        return _fill(ring, a, torch.ones(a.shape, dtype=torch.bool), b)
    infinite = _infinite(a, b)
    result = ring.compute((a, b), lambda plane, x, y: plane.add(x, y), _size(a) + _size(b), torch.add)
    result.infinite = None if infinite is None else infinite.expand(result.shape)
    return result


@_row("sub")
def _subtract(ring: Ring, a: Any, b: Any, *, alpha: Any = 1) -> RingTensor:
    ring.refuse_infinite("the negative", b)
    return _add(ring, a, b, alpha=-alpha)


@_row("rsub")
def _subtract_from(ring: Ring, a: Any, b: Any, alpha: Any = 1) -> RingTensor:
    return _add(ring, _times(ring, a, -alpha), b)


@_row("neg")
def _negative(ring: Ring, a: Any) -> RingTensor:
    return _times(ring, a, -1)


@_row("mul")
def _times(ring: Ring, a: Any, b: Any) -> RingTensor:
    a, b = ring.carried(a), ring.carried(b)
    for left, right in ((a, b), (b, a)):
        if isinstance(right, int | float) and not right > 0:
            ring.refuse_infinite("a product", left)
        if isinstance(right, RingTensor):
            ring.refuse_infinite("a product", left)
    infinite = _infinite(a, b)
    result = ring.compute((a, b), lambda plane, x, y: plane.times(x, y), _size(a) * _size(b), torch.mul)
    result.infinite = infinite
    return result


@_row("reciprocal")
def _inverse(ring: Ring, a: RingTensor) -> RingTensor:
    ring.refuse_infinite("the inverse", a)
    return ring.compute((a,), lambda plane, x: plane.inverse(x), _size(a).inverse(), torch.reciprocal)


@_row("div")
def _divide(ring: Ring, a: Any, b: Any, *, rounding_mode: str | None = None) -> RingTensor:
    if rounding_mode is not None:
        raise ProofError("`candidate` rounds a quotient, which has no meaning in a ring")
    a, b = ring.carried(a), ring.carried(b)
    if not isinstance(b, RingTensor):
        if b == 0:
            raise ProofError("`candidate` divides by 0")
        infinite = _infinite(a)
        result = ring.compute(
            (a,),
            lambda plane, x: plane.times(x, pow(plane.number(b), -1, plane.field.prime)),
            # The number is one denominator of all entries.
            _size(a) * Size(0, 0, _size(b).bits) * Size(degree=_size(b).degree, bits=_size(b).common),
            lambda x: x / b,
        )
        result.infinite = infinite
        return result
    ring.refuse_infinite("a quotient", b)
    return _times(ring, _inverse(ring, b), a)


@_row("pow")
def _power(ring: Ring, a: Any, exponent: Any) -> RingTensor:
    if isinstance(exponent, RingTensor) or not isinstance(a, RingTensor):
        raise ProofError("`candidate` raises a number to a variable power, which has no meaning in a ring")
    if float(exponent) == int(exponent):
        ring.refuse_infinite("a power", a)
        whole = int(exponent)
        size = Size()
        for _ in range(abs(whole)):
            size = size * (_size(a) if whole > 0 else _size(a).inverse())
        return ring.compute((a,), lambda plane, x: plane.power(x, whole), size, lambda x: x**whole)
    if float(2 * exponent) == int(2 * exponent):
        return _power(ring, _root(ring, a), int(2 * exponent))
    raise ProofError(f"`candidate` takes the power {exponent}, which has no meaning in a ring")


@_row("square")
def _square(ring: Ring, a: RingTensor) -> RingTensor:
    return _times(ring, a, a)


@_row("mm", "bmm", "mv", "dot", "matmul")
def _product(ring: Ring, a: Any, b: Any) -> RingTensor:
    a, b = ring.carried(a), ring.carried(b)
    ring.refuse_infinite("a product", a, b)
    terms = a.shape[-1]
    return ring.compute(
        (a, b),
        lambda plane, x, y: plane.bilinear(torch.matmul, x, y, terms),
        (_size(a) * _size(b)).summed(terms),
        torch.matmul,
    )


@_row("addmm", "baddbmm", "addmv", "addbmm")
def _product_and_sum(ring: Ring, bias: Any, a: Any, b: Any, *, beta: Any = 1, alpha: Any = 1) -> RingTensor:
    product = _product(ring, a, b)
    product = product if alpha == 1 else _times(ring, product, alpha)
    if beta == 0:
        return product
    return _add(ring, product, bias if beta == 1 else _times(ring, ring.carried(bias), beta))


@_row("addcmul")
def _add_product(ring: Ring, total: Any, a: Any, b: Any, *, value: Any = 1) -> RingTensor:
    return _add(ring, total, _times(ring, _times(ring, a, b), value))


@_row("sum")
def _sum(ring: Ring, a: RingTensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> RingTensor:
    ring.refuse_infinite("a sum", a)
    dims = _dims(a, dim)
    terms = prod(a.shape[d] for d in dims)
    return ring.compute(
        (a,),
        lambda plane, x: plane.sum(x, dims, keepdim),
        _size(a).summed(terms),
        lambda x: x.sum(dims, keepdim=keepdim) if dims else x.clone(),
    )


@_row("mean")
def _mean(ring: Ring, a: RingTensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> RingTensor:
    return _divide(ring, _sum(ring, a, dim, keepdim), prod(a.shape[d] for d in _dims(a, dim)))


@_row("cumsum")
def _running_sum(ring: Ring, a: RingTensor, dim: int, *, dtype: Any = None) -> RingTensor:
    ring.refuse_infinite("a sum", a)
    return ring.compute(
        (a,), lambda plane, x: plane.cumsum(x, dim), _size(a).summed(a.shape[dim]), lambda x: x.cumsum(dim)
    )


@_row("prod")
def _product_along(ring: Ring, a: RingTensor, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    flat = a if dim is not None else torch.ops.aten.view(a, [-1])
    with ring:
        parts = flat.unbind(0 if dim is None else dim)
        result = parts[0]
        for part in parts[1:]:
            result = result * part
        return result.unsqueeze(dim) if keepdim and dim is not None else result


@_row("convolution")
def _convolution(
    ring: Ring, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: Any,
    output_padding: Any, groups: int,
) -> RingTensor:  # fmt: skip
    x, weight = ring.carried(x), ring.carried(weight)
    ring.refuse_infinite("a convolution", x, weight)
    terms = prod(weight.shape[1:]) if not transposed else weight.shape[0] * prod(weight.shape[2:])

    def convolve(a: Tensor, b: Tensor) -> Tensor:
        return torch.ops.aten.convolution(
            a, b, None, stride, padding, dilation, transposed, output_padding, groups
        )

    result = ring.compute(
        (x, weight),
        lambda plane, a, b: plane.bilinear(convolve, a, b, terms),
        (_size(x) * _size(weight)).summed(terms),
        convolve,
    )
    if bias is None:
        return result
    with ring:
        return result + ring.carried(bias).reshape(-1, *[1] * (x.dim() - 2))


@_row("avg_pool2d", "avg_pool1d", "avg_pool3d")
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
    return _divide(ring, summed, count)


@_row("exp")
def _exponential(ring: Ring, a: RingTensor) -> RingTensor:
    if not ring.field.order:
        raise NeedsExponentials
    ring.exponentials = True
    if a.exponents is None:
        raise ProofError("`candidate` takes an exponential of an exponential, which is not followed in a ring")
    values = ring.field.exponential(a.exponents)
    if a.infinite is not None:
        values = torch.where(a.infinite, 0, values)
    return RingTensor(values, None, None, a.dtype, Size(degree=1))


class NeedsExponentials(Exception):
    """An exponential was met in a field without them: the check starts again in another one."""


@_row("_softmax", "softmax")
def _softmax(ring: Ring, a: RingTensor, dim: int, half_to_float: Any = False, **_: Any) -> RingTensor:
    powers = _exponential(ring, a)
    return _divide(ring, powers, _sum(ring, powers, dim, True))


@_row("_safe_softmax")
def _safe_softmax(ring: Ring, a: RingTensor, dim: int, dtype: Any = None) -> RingTensor:
    powers = _exponential(ring, a)
    total = _sum(ring, powers, dim, True)
    if a.infinite is not None:
        # Rows that are masked out altogether are 0.
        empty = a.infinite.all(dim, keepdim=True)
        total.values = torch.where(empty, 1, total.values)
    return _divide(ring, powers, total)


@_row("sigmoid")
def _sigmoid(ring: Ring, a: RingTensor) -> RingTensor:
    return _inverse(ring, _add(ring, _exponential(ring, _negative(ring, a)), 1))


@_row("silu")
def _silu(ring: Ring, a: RingTensor) -> RingTensor:
    return _times(ring, a, _sigmoid(ring, a))


@_row("tanh")
def _tanh(ring: Ring, a: RingTensor) -> RingTensor:
    return _subtract(ring, _times(ring, _sigmoid(ring, _times(ring, a, 2)), 2), 1)


@_row("sqrt")
def _root(ring: Ring, a: RingTensor) -> RingTensor:
    if (reals := a.reals) is not None:
        return ring.lift(reals.sqrt(), a.dtype)
    return _opaque(ring, "sqrt", a)


@_row("rsqrt")
def _inverse_root(ring: Ring, a: RingTensor) -> RingTensor:
    return _inverse(ring, _root(ring, a))


def _opaque(ring: Ring, name: str, a: RingTensor) -> RingTensor:
    """Carry a function without laws here: equal arguments have equal values."""
    ring.refuse_infinite(name, a)
    ring.opaque.add(name)
    return ring.compute((a,), lambda plane, x: plane.opaque(name, x), _size(a) * Size(degree=5, bits=31))


def _named(name: str) -> Callable[..., Any]:
    def function(ring: Ring, a: RingTensor, *args: Any, **kwargs: Any) -> RingTensor:
        options = ",".join(str(v) for v in (*args, *kwargs.values()) if not isinstance(v, Tensor))
        if any(isinstance(v, Tensor) for v in (*args, *kwargs.values())):
            raise ProofError(f"`candidate` calls {name} of several tensors, which has no meaning in a ring")
        reals = a.reals
        if reals is not None:
            return ring.lift(getattr(torch.ops.aten, name)(reals, *args, **kwargs))
        return _opaque(ring, f"{name}({options})" if options else name, a)

    return function


OPERATIONS |= {
    name: _named(name)
    for name in """abs relu gelu erf log log1p log2 expm1 sin cos elu leaky_relu softplus hardtanh hardswish hardsigmoid
    mish clamp clamp_min clamp_max sign floor ceil round selu celu relu6""".split()
}


@_row("amax", "amin", "max", "min")
def _largest(ring: Ring, a: RingTensor, dim: Any = None, keepdim: bool = False) -> Any:
    """Carry a maximum as a symmetric opaque function: the maximum that softmax subtracts cancels."""
    if isinstance(dim, RingTensor):
        return _pairwise("maximum")(ring, a, dim)
    name = "amax"
    ring.opaque.add(name)
    dims = _dims(a, dim)
    result = ring.compute(
        (a,), lambda plane, x: plane.sum(plane.opaque(name, x), dims, keepdim), _size(a) * Size(degree=5, bits=31)
    )
    return result if dim is None or not isinstance(dim, int) else (result, _Unordered.like(result))


OPERATIONS["amax"] = OPERATIONS["amin"] = lambda ring, a, dim=(), keepdim=False: _largest(
    ring, a, tuple(dim) or tuple(range(a.dim())), keepdim
)


class _Unordered:
    """The places of a maximum, which a ring does not know."""

    @staticmethod
    def like(a: RingTensor) -> RingTensor:
        return RingTensor(a.values, None, None, torch.int64, a.state.size)


def _pairwise(name: str) -> Callable[..., Any]:
    def function(ring: Ring, a: Any, b: Any) -> RingTensor:
        a, b = ring.carried(a), ring.carried(b)
        ring.opaque.add(name)
        size = (_size(a) + _size(b)) * Size(degree=5, bits=31)
        result = ring.compute(
            (a, b), lambda plane, x, y: plane.add(plane.opaque(name, x), plane.opaque(name, y)), size
        )
        return result

    return function


OPERATIONS |= {name: _pairwise(name) for name in ("maximum", "minimum")}


@_row("where")
def _where(ring: Ring, condition: Any, a: Any, b: Any) -> RingTensor:
    if isinstance(condition, RingTensor):
        raise ProofError("`candidate` chooses by values, which a ring does not order")
    a, b = (ring.lift(torch.tensor(float(v))) if not isinstance(v, Tensor) else ring.carried(v) for v in (a, b))
    masks = None
    if a.infinite is not None or b.infinite is not None:
        none = torch.zeros((), dtype=torch.bool)
        masks = torch.where(condition, none if a.infinite is None else a.infinite, none if b.infinite is None else b.infinite)
    result = ring.compute(
        (a, b), lambda plane, x, y: torch.where(condition, x, y), _size(a).join(_size(b)),
        lambda x, y: torch.where(condition, x, y),
    )  # fmt: skip
    result.infinite = None if masks is None else masks.expand(result.shape)
    return result


@_row("masked_fill")
def _fill(ring: Ring, a: RingTensor, mask: Tensor, value: Any) -> RingTensor:
    value = value if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64)
    return _where(ring, mask, value, a)


@_row("_to_copy")
def _cast(ring: Ring, a: RingTensor, *, dtype: torch.dtype | None = None, **_: Any) -> Any:
    """Casts between floats change nothing here: rounding is not what is judged."""
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


@_row("_local_scalar_dense", "item", "is_nonzero")
def _read(ring: Ring, a: RingTensor) -> float:
    if (reals := a.reals) is not None:
        return reals.item()
    raise ProofError("`candidate` reads a value into Python (item, bool or float of a tensor), which a ring cannot give")


@_row("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training")
def _batch_norm(ring: Ring, x: RingTensor, weight: Any, bias: Any, mean: Any, variance: Any, *rest: Any) -> Any:
    training = rest[0] if rest and isinstance(rest[0], bool) else False
    if training:
        raise ProofError("`candidate` has a batch norm in training mode, which changes its buffers; call eval() first")
    eps = rest[-1]
    shape = [1, -1, *[1] * (x.dim() - 2)]
    with ring:
        scale = 1 / (ring.carried(variance) + eps).sqrt()
        result = (x - ring.carried(mean).reshape(shape)) * scale.reshape(shape)
        if weight is not None:
            result = result * ring.carried(weight).reshape(shape)
        if bias is not None:
            result = result + ring.carried(bias).reshape(shape)
    return result, torch.empty(0), torch.empty(0)


@_row("var", "var_mean")
def _variance(ring: Ring, a: RingTensor, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *,
              correction: Any = None) -> RingTensor:  # fmt: skip
    dims = _dims(a, dim)
    count = prod(a.shape[d] for d in dims)
    if correction is None:
        correction = 1 if unbiased else 0
    with ring:
        off = a - a.mean(dims, keepdim=True)
        return (off * off).sum(dims, keepdim=keepdim) / (count - int(correction))


OPERATIONS["var_mean"] = lambda ring, a, dim=None, *rest, keepdim=False, **options: (
    _variance(ring, a, dim, *rest, keepdim=keepdim, **options),
    _mean(ring, a, dim, keepdim),
)


def _normalized(ring: Ring, x: RingTensor, dims: list[int], eps: float) -> RingTensor:
    with ring:
        off = x - x.mean(dims, keepdim=True)
        return off * ((off * off).mean(dims, keepdim=True) + eps).rsqrt()


@_row("native_layer_norm")
def _layer_norm(ring: Ring, x: RingTensor, shape: Sequence[int], weight: Any, bias: Any, eps: float) -> Any:
    with ring:
        result = _normalized(ring, x, list(range(x.dim() - len(shape), x.dim())), eps)
        result = result if weight is None else result * ring.carried(weight)
        result = result if bias is None else result + ring.carried(bias)
    return result, torch.empty(0), torch.empty(0)


@_row("native_group_norm")
def _group_norm(ring: Ring, x: RingTensor, weight: Any, bias: Any, n: int, c: int, hw: int, groups: int,
                eps: float) -> Any:  # fmt: skip
    shape = [1, c, *[1] * (x.dim() - 2)]
    with ring:
        grouped = x.reshape(n, groups, -1)
        result = _normalized(ring, grouped, [2], eps).reshape(x.shape)  # type: ignore[arg-type]
        result = result if weight is None else result * ring.carried(weight).reshape(shape)
        result = result if bias is None else result + ring.carried(bias).reshape(shape)
    return result, torch.empty(0), torch.empty(0)


@_row("linalg_vector_norm")
def _norm(ring: Ring, a: RingTensor, order: float = 2, dim: Any = None, keepdim: bool = False, *,
          dtype: Any = None) -> Any:  # fmt: skip
    if order == 1:
        return _sum(ring, OPERATIONS["abs"](ring, a), dim, keepdim)
    if order == 2:
        return _root(ring, _sum(ring, _times(ring, a, a), dim, keepdim))
    raise ProofError(f"`candidate` takes a norm of order {order}, which has no meaning in a ring")


@_row("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_fused_attention_overrideable")
def _attention(
    ring: Ring, q: Any, k: Any, v: Any, dropout: float = 0.0, is_causal: bool = False, *, attn_mask: Any = None,
    scale: float | None = None,
) -> Any:  # fmt: skip
    if dropout:
        raise ProofError("`candidate` calls attention with dropout, which is random; check it in evaluation mode")
    with ring:
        result = torch.ops.aten._scaled_dot_product_attention_math(
            q, k, v, attn_mask, 0.0, is_causal, scale=1 / math.sqrt(q.shape[-1]) if scale is None else scale
        )[0]
    return result, torch.empty(0)


def _math_attention(
    ring: Ring, q: Any, k: Any, v: Any, attn_mask: Any = None, dropout: float = 0.0, is_causal: bool = False,
    dropout_mask: Any = None, *, scale: float | None = None, enable_gqa: bool = False,
) -> Any:  # fmt: skip
    with ring:
        if enable_gqa:
            k, v = (t.repeat_interleave(q.shape[-3] // t.shape[-3], -3) for t in (k, v))
        scores = q @ k.transpose(-1, -2) * (1 / math.sqrt(q.shape[-1]) if scale is None else scale)
        if is_causal:
            attn_mask = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril()
        if attn_mask is not None:
            if attn_mask.dtype == torch.bool:
                scores = scores.masked_fill(~attn_mask, -math.inf)
            else:
                scores = scores + attn_mask
        shares = torch.ops.aten._safe_softmax(scores, -1)
        return shares @ v, shares


OPERATIONS["_scaled_dot_product_attention_math"] = _math_attention

WRITES |= {
    "copy_": lambda ring, target, source, non_blocking=False: _expanded(ring, ring.carried(source), target),
    "fill_": lambda ring, target, value: _expanded(
        ring, ring.carried(value if isinstance(value, Tensor) else torch.tensor(float(value), dtype=torch.float64)), target
    ),
    "zero_": lambda ring, target: ring.lift(torch.zeros(target.shape)),
    "index_put_": lambda ring, target, indices, values, accumulate=False: _put(ring, target, indices, values, accumulate),
}


def _expanded(ring: Ring, source: RingTensor, target: RingTensor) -> RingTensor:
    with ring:
        return source.expand(target.shape)  # type: ignore[return-value]


def _put(ring: Ring, target: RingTensor, indices: Sequence[Any], values: Any, accumulate: bool) -> RingTensor:
    values = ring.carried(values)
    size = _size(target) + _size(values).summed(values.numel()) if accumulate else _size(target).join(_size(values))

    def put(plane: Any, x: Tensor, v: Tensor) -> Tensor:
        result = torch.ops.aten.index_put(x, indices, v, accumulate)
        return plane.add(result, 0) if plane is not None else result

    return ring.compute((target, values), put, size, lambda x, v: put(None, x, v))


OPERATIONS["index_put"] = _put


def _dims(a: RingTensor, dim: Any) -> list[int]:
    if dim is None or (isinstance(dim, list | tuple) and not dim):
        return list(range(a.dim()))
    return sorted(d % max(a.dim(), 1) for d in ([dim] if isinstance(dim, int) else dim)) if a.dim() else []


def _each(value: Any, dims: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * dims if len(values) == 1 else values
