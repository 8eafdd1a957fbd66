"""Operations along axes: sums, extremes, softmax, norms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from polyattn.reading.operations.pointwise import MINUS
from polyattn.reading.operations.products import a_length
from polyattn.reading.operations.table import (
    Called,
    add_up,
    along,
    as_value,
    axis_numbers,
    entrywise,
    operation,
    product,
    quotient,
    scaled,
    total,
)
from polyattn.reading.sizes import UnsayableError
from polyattn.reading.values import ONE, Value, reshaped

Axes = int | Sequence[int] | None


@operation("sum", "mean")
def total_of(call: Called, x: Value, dim: Axes = None, keepdim: bool = False, **_: Any) -> Value:
    axes = axis_numbers(dim, len(x.axes))
    return add_up(call, x, axes, keepdim, mean=call.name == "mean", hint="m" if call.name == "mean" else "t")


@operation("amax", "amin", "max", "min")
def extreme(call: Called, x: Value, dim: Any = None, keepdim: bool = False, **_: Any) -> Any:
    if isinstance(dim, Value):
        raise UnsayableError(f"{call.name} of two tensors")
    name = "max" if "max" in call.name else "min"
    found = along(call, name, x, axis_numbers(dim, len(x.axes)), keepdim, "top")
    # `max(dim)` has the places as its second result, which is not read.
    return [found, None] if len(call.shapes) > 1 else found


@operation("maximum", "minimum")
def larger(call: Called, left: Any, right: Any) -> Value:
    """Read the larger of two by relu: max(x, y) = y + relu(x - y), min(x, y) = x - relu(x - y)."""
    a, b = as_value(left), as_value(right)
    above = entrywise(call, "relu", total(call, [a, b], [ONE, MINUS]))
    return total(call, [b if call.name == "maximum" else a, above], [ONE, ONE if call.name == "maximum" else MINUS])


@operation("softmax", "_softmax", "log_softmax", "_log_softmax")
def softmax(call: Called, x: Value, dim: int, *_: Any, **__: Any) -> Value:
    axes = axis_numbers(dim, len(x.axes))
    if "log" not in call.name:
        return along(call, "softmax", x, axes, True, "p")
    if x.where:
        raise UnsayableError("logarithms of zeros")
    return total(call, [x, along(call, "logsumexp", x, axes, True, "lse")], [ONE, MINUS])


@operation("logsumexp")
def logsumexp(call: Called, x: Value, dim: Axes, keepdim: bool = False) -> Value:
    return along(call, "logsumexp", x, axis_numbers(dim, len(x.axes)), keepdim, "lse")


@operation("var", "std", "var_mean", "std_mean")
def variance(call: Called, x: Value, dim: Any = None, unbiased: Any = True, keepdim: bool = False, **more: Any) -> Any:
    correction = more.get("correction", 1 if unbiased else 0)
    if correction != 0 or isinstance(dim, bool):
        raise UnsayableError("a variance with a correction")
    axes = axis_numbers(dim, len(x.axes))
    middle = add_up(call, x, axes, True, mean=True, hint="m")
    apart = total(call, [x, middle], [ONE, MINUS])
    found = add_up(call, product(call, [apart, apart]), axes, keepdim, mean=True)
    found = entrywise(call, "sqrt", found) if "std" in call.name else found
    return [found, add_up(call, x, axes, keepdim, mean=True)] if "mean" in call.name else found


@operation("linalg_vector_norm", "norm")
def vector_norm(call: Called, x: Value, order: Any = 2, dim: Axes = None, keepdim: bool = False, **_: Any) -> Value:
    axes = axis_numbers(dim, len(x.axes))
    if order == 1:
        return add_up(call, entrywise(call, "abs", x), axes, keepdim)
    if order not in (None, 2):
        raise UnsayableError(f"the norm of order {order}")
    return entrywise(call, "sqrt", add_up(call, product(call, [x, x]), axes, keepdim), "length")


def standardised(call: Called, x: Value, axes: set[int], eps: Any, centre: bool = True) -> Value:
    """Return (x - mean)/sqrt(variance + eps) along axes, or x/sqrt(mean square + eps)."""
    inner = replace(call, hint="")
    if centre:
        x = total(inner, [x, add_up(inner, x, axes, True, mean=True, hint="mean_")], [ONE, MINUS], "centred")
    spread = add_up(inner, product(inner, [x, x]), axes, True, mean=True, hint="variance")
    root = entrywise(inner, "sqrt", total(inner, [spread, as_value(eps)], [ONE, ONE]), "deviation")
    return quotient(inner, x, root, "standard")


def affine(call: Called, x: Value, weight: Value | None, bias: Value | None) -> Value:
    """Return x times a weight plus a bias, in one definition that has the call's name."""
    inner = replace(call, hint="")
    if weight is not None:
        x = product(inner, [x, weight])
    if bias is not None:
        return total(call, [x, bias], [ONE, ONE])
    return scaled(call, x, ONE)


@operation("layer_norm")
def layer_norm(
    call: Called,
    x: Value,
    shape: Sequence[Any],
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Value:
    rank = len(x.axes)
    return affine(call, standardised(call, x, set(range(rank - len(shape), rank)), eps), weight, bias)


@operation("native_layer_norm")
def native_layer_norm(call: Called, *arguments: Any) -> list[Any]:
    return [layer_norm(call, *arguments), None, None]


@operation("rms_norm")
def rms_norm(call: Called, x: Value, shape: Sequence[Any], weight: Value | None = None, eps: Any = None) -> Value:
    if eps is None:
        raise UnsayableError("an RMS norm whose eps depends on the dtype")
    rank = len(x.axes)
    return affine(call, standardised(call, x, set(range(rank - len(shape), rank)), eps, False), weight, None)


def _channels(parameter: Value | None, x: Value) -> Value | None:
    """Return a parameter of one entry a channel, against (batch, channels, ...)."""
    return None if parameter is None else replace(parameter, axes=(*parameter.axes, *((),) * (len(x.axes) - 2)))


@operation("group_norm")
def group_norm(
    call: Called,
    x: Value,
    groups: int,
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Value:
    count = len(call.shape[0])
    shape = [a_length(axis, count) for axis in x.axes]
    inner = tuple(c // groups for c in shape[1])
    parts = reshaped(x, (shape[0], (groups,) * count, inner, *shape[2:]))
    found = standardised(call, parts, set(range(2, len(parts.axes))), eps)
    found = replace(found, axes=(found.axes[0], (*found.axes[1], *found.axes[2]), *found.axes[3:]))
    return affine(call, found, _channels(weight, x), _channels(bias, x))


@operation("instance_norm")
def instance_norm(
    call: Called, x: Value, weight: Any, bias: Any, mean: Any, var: Any, use_input: bool, _: Any, eps: float, *__: Any
) -> Value:
    if not use_input:
        return _by_buffers(call, x, weight, bias, mean, var, eps)
    found = standardised(call, x, set(range(2, len(x.axes))), eps)
    return affine(call, found, _channels(weight, x), _channels(bias, x))


@operation("batch_norm")
def batch_norm(
    call: Called, x: Value, weight: Any, bias: Any, mean: Any, var: Any, training: bool, _: Any, eps: float, *__: Any
) -> Value:
    if training or mean is None:
        raise UnsayableError("batch norm by the batch's own statistics")
    return _by_buffers(call, x, weight, bias, mean, var, eps)


@operation("_native_batch_norm_legit_no_training")
def native_batch_norm(
    call: Called, x: Value, weight: Any, bias: Any, mean: Any, var: Any, _: float, eps: float
) -> list[Any]:
    return [_by_buffers(call, x, weight, bias, mean, var, eps), None, None]


def _by_buffers(call: Called, x: Value, weight: Any, bias: Any, mean: Any, var: Any, eps: float) -> Value:
    inner = replace(call, hint="")
    middle, spread = _channels(mean, x), _channels(var, x)
    assert middle is not None
    assert spread is not None
    centred = total(inner, [x, middle], [ONE, MINUS], "centred")
    root = entrywise(inner, "sqrt", total(inner, [spread, as_value(eps)], [ONE, ONE]), "deviation")
    return affine(call, quotient(inner, centred, root), _channels(weight, x), _channels(bias, x))


@operation("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "_adaptive_avg_pool2d")
@operation("adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d")
def adaptive_pool(call: Called, x: Value, size: Any) -> Any:
    """Read a pooling to a size that divides the map's: the mean, or the largest, of blocks."""
    spatial = {"1": 1, "2": 2, "3": 3}[call.name[-2]]
    lead = len(x.axes) - spatial
    count = len(call.shape[0])
    shape: list[Any] = [a_length(axis, count) for axis in x.axes[:lead]]
    inner: set[int] = set()
    for axis, out in zip(x.axes[lead:], call.shape[lead:], strict=True):
        whole = a_length(axis, count)
        if any(w % n for w, n in zip(whole, out, strict=True)):
            raise UnsayableError("a pooling to a size that does not divide the map's")
        inner.add(len(shape) + 1)
        shape += [out, tuple(w // n for w, n in zip(whole, out, strict=True))]
    blocks = reshaped(x, tuple(shape))
    if "avg" in call.name:
        return add_up(call, blocks, inner, False, mean=True, hint="m")
    found = along(call, "max", blocks, inner, False, "top")
    return [found, None] if len(call.shapes) > 1 else found
