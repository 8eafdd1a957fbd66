"""Products that sum: linear maps, matrix products, einsum, 1x1 convolutions, attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from polyattn.reading.numbers import exact
from polyattn.reading.operations.masks import plus, restricted, triangle
from polyattn.reading.operations.neighbours import neighbours
from polyattn.reading.operations.table import (
    Called,
    aligned,
    along,
    axes_of,
    common,
    contracted,
    operation,
    scaled,
)
from polyattn.reading.sizes import Size, UnsayableError, divided
from polyattn.reading.values import ONE, Coefficient, Index, Term, Value, map_slot, power_of, reshaped


@operation("linear")
def linear(call: Called, x: Value, weight: Value, bias: Value | None = None) -> Value:
    turned = replace(weight, axes=weight.axes[::-1])
    return _with_bias(call, _matmul(call, x, turned, call.hint or "t"), bias)


def _with_bias(
    call: Called, product: Value, bias: Value | None, beta: Coefficient = ONE, alpha: Coefficient = ONE
) -> Value:
    """Add a bias to a product that was just made, within one definition."""
    if bias is None:
        return product if alpha == ONE else scaled(call, product, alpha)
    found = common(product, bias)
    terms = (Term(alpha, (found[0].access,)), Term(beta, (found[1].access,)))
    return call.define(axes_of(found), terms)


@operation("matmul", "mm", "bmm", "mv", "dot")
def matmul(call: Called, left: Value, right: Value) -> Value:
    return _matmul(call, left, right, "s")


def _matmul(call: Called, left: Value, right: Value, hint: str) -> Value:
    vector_left, vector_right = len(left.axes) == 1, len(right.axes) == 1
    a = replace(left, axes=((), *left.axes)) if vector_left else left
    b = replace(right, axes=(*right.axes, ())) if vector_right else right
    # Both with the axes (..., rows, summed, columns), which broadcast.
    a = replace(a, axes=(*a.axes, ()))
    b = replace(b, axes=(*b.axes[:-2], (), *b.axes[-2:]))
    a, b = common(a, b)
    *lead, rows, _, columns = axes_of([a, b])
    axes = (*lead, *(() if vector_left else (rows,)), *(() if vector_right else (columns,)))
    return contracted(call, a, b, axes, hint)


@operation("addmm", "addmv")
def addmm(call: Called, bias: Value, left: Value, right: Value, *, beta: Any = 1, alpha: Any = 1) -> Value:
    return _with_bias(call, _matmul(call, left, right, "s"), bias, exact(beta), exact(alpha))


@operation("baddbmm")
def baddbmm(call: Called, bias: Value, left: Value, right: Value, *, beta: Any = 1, alpha: Any = 1) -> Value:
    return addmm(call, bias, left, right, beta=beta, alpha=alpha)


@operation("einsum")
def einsum(call: Called, text: str, operands: Sequence[Value], **_: Any) -> Value:
    left, arrow, right = text.replace(" ", "").partition("->")
    if "." in text or not operands:
        raise UnsayableError("an einsum with an ellipsis")
    found = [v.fresh() for v in operands]
    words = left.split(",")
    if not arrow:
        letters = sorted(set(left) - {","})
        right = "".join(c for c in letters if left.count(c) == 1)
    meaning: dict[str, tuple[Index, ...]] = {}
    for k, word in enumerate(words):
        for place, letter in enumerate(word):
            axis = found[k].axes[place]
            if not axis:
                # An axis of length 1 broadcasts.
                continue
            if letter not in meaning:
                meaning[letter] = axis
                continue
            mapping = aligned(meaning[letter], axis)
            found = [v.mapped(mapping) for v in found]
            meaning = {
                c: tuple(i for old in a for i in mapping.get(old, (old,)) if isinstance(i, Index))
                for c, a in meaning.items()
            }
    axes = tuple(meaning.get(letter, ()) for letter in right)
    kept = {i for axis in axes for i in axis}
    factors = tuple(v.access for v in found)
    within = {i for f in factors for i in f.indices}
    scale = ONE
    for index in dict.fromkeys(i for a in meaning.values() for i in a):
        if index not in kept and index not in within:
            scale *= power_of(index.size)
    return call.define(axes, (Term(scale, factors),), "s")


@operation("outer", "ger")
def outer(call: Called, left: Value, right: Value) -> Value:
    a, b = replace(left, axes=(*left.axes, ())), replace(right, axes=((), *right.axes))
    first, second = common(a, b)
    return contracted(call, first, second, axes_of([first, second]), "s")


@operation("conv1d", "conv2d", "conv3d", "convolution")
def convolution(
    call: Called,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    *more: Any,
) -> Value:
    """Read a convolution: a product over channels and offsets; zeros are outside of the map."""
    groups = more[-1] if more else 1
    if call.name == "convolution" and more[0]:
        raise UnsayableError("a transposed convolution")
    spatial = len(weight.axes) - 2
    channel = len(x.axes) - spatial - 1
    count = len(call.shape[0])
    steps = (_listed(stride, spatial), _listed(dilation, spatial), padding)
    x, weight, places, offsets = neighbours(call, x, weight, steps)
    lead = x.axes[:channel]
    if groups == 1:
        a = replace(x, axes=(*lead, (), x.axes[channel]))
        b = weight
    else:
        # x as (batch, group, 1, inner channels, ...), the weight as (group, outer channels, inner channels, 1, ...).
        width, group = a_length(x.axes[channel], count), (groups,) * count
        inner = tuple(w // groups for w in width)
        shape = [a_length(axis, count) for axis in x.axes]
        split = reshaped(x, (*shape[:channel], group, inner, *shape[channel + 1 :]))
        a = replace(split, axes=(*split.axes[: channel + 1], (), *split.axes[channel + 1 :]))
        out = tuple(n // groups for n in a_length(weight.axes[0], count))
        b = reshaped(weight, (group, out, a_length(weight.axes[1], count)))
    a, b = common(a, b)
    a = replace(a, slots=tuple(map_slot(slot, offsets) for slot in a.slots))
    axes = list(axes_of([a, b]))
    if groups == 1:
        del axes[channel + 1]
    else:
        axes[channel : channel + 3] = [(*axes[channel], *axes[channel + 1])]
    product = contracted(call, a, b, (*axes, *places), call.hint or "t")
    if bias is not None:
        bias = replace(bias, axes=(*bias.axes, *((),) * spatial))
    return _with_bias(call, product, bias)


def a_length(axis: tuple[Index, ...], count: int) -> tuple[int, ...]:
    found = (1,) * count
    for index in axis:
        found = tuple(p * q for p, q in zip(found, index.size.values, strict=True))
    return found


def _listed(given: int | Sequence[int], count: int) -> list[int]:
    found = [given] if isinstance(given, int) else list(given)
    return found * count if len(found) == 1 else found


def _repeated(query: Value, x: Value, count: int) -> Value:
    """Return keys or values with each head repeated for its group of the query's."""
    times = divided(a_length(query.axes[-3], count), a_length(x.axes[-3], count))
    if times is None:
        raise UnsayableError("heads that are not in equal groups")
    group = () if set(times) == {1} else (Index(Size(times)),)
    return replace(x, axes=(*x.axes[:-3], (*x.axes[-3], *group), *x.axes[-2:]))


@operation("scaled_dot_product_attention")
def attention(
    call: Called,
    query: Value,
    key: Value,
    value: Value,
    attn_mask: Value | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: Any = None,
    enable_gqa: bool = False,
) -> Value:
    if dropout_p:
        raise UnsayableError("dropout in training mode")
    if enable_gqa:
        key, value = (_repeated(query, x, len(call.shape[0])) for x in (key, value))
    inner = replace(call, hint="")
    turned = replace(key, axes=(*key.axes[:-2], key.axes[-1], key.axes[-2]))
    factor = ONE if scale is None else exact(scale)
    if scale is None:
        for index in query.axes[-1]:
            factor *= power_of(index.size, Fraction(-1, 2))
    scores = scaled(inner, _matmul(inner, query, turned, "s"), factor, "s")
    if attn_mask is not None:
        boolean = call.inputs[3:4] == ("bool",)
        scores = restricted(scores, attn_mask) if boolean else plus(inner, scores, attn_mask)
    if is_causal:
        scores = restricted(scores, triangle(call, scores.axes[-2], scores.axes[-1], "<="))
    weights = along(inner, "softmax", scores, {len(scores.axes) - 1}, True, "p")
    return _matmul(call, weights, value, "y")
