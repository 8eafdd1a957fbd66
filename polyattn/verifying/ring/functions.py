"""Functions, norms and attention in a ring: exponentials as powers, and functions of which only the name is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from polyattn.errors import ProofError
from polyattn.verifying.ring.operations import (
    OPERATIONS,
    WRITES,
    add,
    dims_of,
    divide,
    inverse,
    mean,
    negative,
    row,
    size_of,
    subtract,
    times,
    total,
)
from polyattn.verifying.ring.planes import Residues
from polyattn.verifying.ring.ring import Ring
from polyattn.verifying.ring.size import Size
from polyattn.verifying.ring.tensor import RingTensor

__all__ = ["OPERATIONS", "WRITES", "NeedsExponentials"]


@row("exp")
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


@row("_softmax", "softmax")
def _softmax(ring: Ring, a: RingTensor, dim: int, half_to_float: Any = False, **_: Any) -> RingTensor:
    powers = _exponential(ring, a)
    return divide(ring, powers, total(ring, powers, dim, True))


@row("_safe_softmax")
def _safe_softmax(ring: Ring, a: RingTensor, dim: int, dtype: Any = None) -> RingTensor:
    powers = _exponential(ring, a)
    below = total(ring, powers, dim, True)
    if a.infinite is not None:
        # Rows that are masked out altogether are 0.
        below.values.masked_fill_(a.infinite.all(dim, keepdim=True), 1)
    return divide(ring, powers, below)


@row("sigmoid")
def _sigmoid(ring: Ring, a: RingTensor) -> RingTensor:
    return inverse(ring, add(ring, _exponential(ring, negative(ring, a)), 1))


@row("silu")
def _silu(ring: Ring, a: RingTensor) -> RingTensor:
    return times(ring, a, _sigmoid(ring, a))


@row("tanh")
def _tanh(ring: Ring, a: RingTensor) -> RingTensor:
    return subtract(ring, times(ring, _sigmoid(ring, times(ring, a, 2)), 2), 1)


@row("sqrt")
def _root(ring: Ring, a: RingTensor) -> RingTensor:
    if (reals := a.reals) is not None:
        return ring.lift(reals.sqrt(), a.dtype)
    return _opaque(ring, "sqrt", a)


@row("rsqrt")
def _inverse_root(ring: Ring, a: RingTensor) -> RingTensor:
    return inverse(ring, _root(ring, a))


def _opaque(ring: Ring, name: str, a: RingTensor) -> RingTensor:
    """Carry a function without laws here: equal arguments have equal values."""
    ring.refuse_infinite(name, a)
    ring.opaque.add(name)
    # No chance of a false yes is stated where functions are opaque: sizes no longer matter.
    return ring.compute((a,), lambda plane, x: plane.opaque(name, x), size_of(a))


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
    mish clamp clamp_min clamp_max sign floor ceil round selu celu relu6""".split()  # noqa: SIM905
}


def _extreme(name: str) -> Callable[..., Any]:
    def function(ring: Ring, a: RingTensor, dim: Any = None, keepdim: bool = False) -> Any:
        """Carry a maximum as a symmetric function: the one that softmax subtracts cancels."""
        if isinstance(dim, RingTensor):
            return OPERATIONS[f"{name}imum"](ring, a, dim)
        ring.opaque.add(name)
        dims = dims_of(a, dim)

        def along(plane: Residues, x: Tensor) -> Tensor:
            x = torch.where(a.masked, plane.field.salt % plane.field.prime, x)
            # Outside of the sum another function, or maxima of parts would add up to that of the whole.
            return plane.opaque(name, plane.sum(plane.opaque(name, x), dims, keepdim))

        result = ring.compute((a,), along, size_of(a))
        if not isinstance(dim, int):
            return result
        # The places of the maximum, which a ring does not know: every use as an index is refused.
        return result, RingTensor(result.values, None, None, torch.int64, Size())

    return function


def _pairwise(name: str) -> Callable[..., Any]:
    def function(ring: Ring, a: Any, b: Any) -> RingTensor:
        a, b = ring.carried(a), ring.carried(b)
        ring.opaque.add(name)

        def of_both(plane: Residues, x: Tensor, y: Tensor) -> Tensor:
            return plane.opaque(name, plane.add(plane.opaque(name, x), plane.opaque(name, y)))

        return ring.compute((a, b), of_both, size_of(a) + size_of(b))

    return function


for _name in ("max", "min"):
    OPERATIONS[_name] = OPERATIONS[f"a{_name}"] = _extreme(_name)
    OPERATIONS[f"{_name}imum"] = _pairwise(f"{_name}imum")


@row("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training")
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


@row("var", "var_mean")
def _variance(ring: Ring, a: RingTensor, dim: Any = None, unbiased: bool = True, keepdim: bool = False, *,
              correction: Any = None) -> Any:  # fmt: skip
    dims = dims_of(a, dim)
    count = prod(a.shape[d] for d in dims)
    if correction is None:
        correction = 1 if unbiased else 0
    with ring:
        off = a - a.mean(dims, keepdim=True)
        return (off * off).sum(dims, keepdim=keepdim) / (count - int(correction))


OPERATIONS["var_mean"] = lambda ring, a, dim=None, *rest, keepdim=False, **options: (
    _variance(ring, a, dim, *rest, keepdim=keepdim, **options),
    mean(ring, a, dim, keepdim),
)


def _normalized(ring: Ring, x: Any, dims: list[int], eps: float) -> Any:
    with ring:
        off = x - x.mean(dims, keepdim=True)
        return off * ((off * off).mean(dims, keepdim=True) + eps).rsqrt()


@row("native_layer_norm")
def _layer_norm(ring: Ring, x: RingTensor, shape: Sequence[int], weight: Any, bias: Any, eps: float) -> Any:
    with ring:
        result = _normalized(ring, x, list(range(x.dim() - len(shape), x.dim())), eps)
        result = result if weight is None else result * ring.carried(weight)
        result = result if bias is None else result + ring.carried(bias)
    return result, torch.empty(0), torch.empty(0)


@row("native_group_norm")
def _group_norm(ring: Ring, x: RingTensor, weight: Any, bias: Any, n: int, c: int, hw: int, groups: int,
                eps: float) -> Any:  # fmt: skip
    shape = [1, c, *[1] * (x.dim() - 2)]
    with ring:
        grouped = x.reshape(n, groups, -1)
        result = _normalized(ring, grouped, [2], eps).reshape(x.shape)
        result = result if weight is None else result * ring.carried(weight).reshape(shape)
        result = result if bias is None else result + ring.carried(bias).reshape(shape)
    return result, torch.empty(0), torch.empty(0)


@row("linalg_vector_norm")
def _norm(ring: Ring, a: RingTensor, order: float = 2, dim: Any = None, keepdim: bool = False, *,
          dtype: Any = None) -> Any:  # fmt: skip
    if order == 1:
        return total(ring, OPERATIONS["abs"](ring, a), dim, keepdim)
    if order == 2:
        return _root(ring, total(ring, times(ring, a, a), dim, keepdim))
    raise ProofError(f"`candidate` takes a norm of order {order}, which has no meaning in a ring")


@row("_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_fused_attention_overrideable")
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
