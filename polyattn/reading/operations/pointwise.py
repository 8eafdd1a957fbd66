"""Operations entry by entry."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import inf
from typing import Any

from polyattn.reading.numbers import exact
from polyattn.reading.operations.masks import NOWHERE, negated, plus, restricted
from polyattn.reading.operations.table import (
    Called,
    as_value,
    entrywise,
    fraction,
    is_value,
    operation,
    product,
    quotient,
    scaled,
    total,
)
from polyattn.reading.sizes import UnsayableError
from polyattn.reading.values import ONE, Coefficient, Value

MINUS = fraction(-1)


@operation("add")
def add(call: Called, left: Any, right: Any, *, alpha: Any = 1) -> Value:
    a, b = as_value(left), as_value(right)
    if a.where or b.where:
        return plus(call, a, b, exact(alpha))
    return total(call, [a, b], [ONE, exact(alpha)], "t")


@operation("sub", "subtract")
def subtract(call: Called, left: Any, right: Any, *, alpha: Any = 1) -> Value:
    return total(call, [as_value(left), as_value(right)], [ONE, exact(alpha) * MINUS], "t")


@operation("rsub")
def rsub(call: Called, left: Any, right: Any, *, alpha: Any = 1) -> Value:
    return subtract(call, right, left, alpha=alpha)


@operation("neg", "negative")
def negative(call: Called, x: Value) -> Value:
    return scaled(call, x, MINUS)


@operation("mul", "multiply")
def multiply(call: Called, left: Any, right: Any) -> Value:
    if not is_value(left):
        left, right = right, left
    return product(call, [left, right]) if is_value(right) else scaled(call, left, exact(right))


@operation("div", "divide", "true_divide")
def divide(call: Called, left: Any, right: Any, *, rounding_mode: str | None = None) -> Value:
    if rounding_mode is not None:
        raise UnsayableError("a division that rounds")
    if not is_value(right):
        divisor = exact(right)
        if not divisor.number:
            raise UnsayableError("a division by zero")
        return scaled(call, left, divisor.inverse())
    return quotient(call, as_value(left), right)


@operation("reciprocal")
def reciprocal(call: Called, x: Value) -> Value:
    return quotient(call, as_value(1), x)


@operation("sqrt")
def root(call: Called, x: Value) -> Value:
    return entrywise(call, "sqrt", x, "root")


@operation("rsqrt")
def reciprocal_root(call: Called, x: Value) -> Value:
    return quotient(call, as_value(1), entrywise(call, "sqrt", x, "root"))


@operation("square")
def square(call: Called, x: Value) -> Value:
    return product(call, [x, x])


@operation("pow")
def power(call: Called, x: Any, exponent: Any) -> Value:
    if not is_value(x) or is_value(exponent):
        raise UnsayableError("a power with an exponent that varies")
    given = exact(exponent)
    if given.powers or (given.number * 2).denominator != 1 or abs(given.number) > 4:
        raise UnsayableError(f"the power {exponent}")
    whole, half = divmod(abs(given.number), 1)
    factors = [x] * int(whole) + [entrywise(call, "sqrt", x, "root")] * int(half > 0)
    found = product(call, factors) if factors else as_value(1)
    return quotient(call, as_value(1), found) if given.number < 0 else found


def _table() -> None:
    """Register the functions of the language that torch has under the same meaning."""

    def register(function: str, names: tuple[str, ...]) -> None:
        @operation(*names)
        def applied(call: Called, x: Value) -> Value:
            return entrywise(call, function, x, call.hint)

    for function in ("exp", "log", "abs", "relu", "sigmoid", "tanh", "silu", "sin", "cos"):
        register(function, (function, "absolute") if function == "abs" else (function,))


_table()


@operation("gelu")
def gelu(call: Called, x: Value, *, approximate: str = "none") -> Value:
    return entrywise(call, "gelu" if approximate == "none" else "gelu_tanh", x, call.hint)


@operation("softplus")
def softplus(call: Called, x: Value, beta: Any = 1, threshold: Any = 20) -> Value:
    # Above its threshold torch's is the identity, which differs by less than the rounding of float32 only.
    if beta != 1 or threshold < 20:
        raise UnsayableError("softplus with another beta or threshold")
    return entrywise(call, "softplus", x, call.hint)


@operation("elu")
def elu(call: Called, x: Value, alpha: Any = 1, scale: Any = 1, input_scale: Any = 1) -> Value:
    if alpha != 1 or scale != 1 or input_scale != 1:
        raise UnsayableError("elu with other scales")
    return entrywise(call, "elu", x, call.hint)


@operation("log_sigmoid")
def log_sigmoid(call: Called, x: Value) -> Value:
    return scaled(call, entrywise(call, "softplus", scaled(call, x, MINUS)), MINUS)


@operation("leaky_relu")
def leaky_relu(call: Called, x: Value, slope: Any = 0.01) -> Value:
    below = entrywise(call, "relu", scaled(call, x, MINUS))
    return total(call, [entrywise(call, "relu", x), below], [ONE, exact(slope) * MINUS])


@operation("clamp_min")
def clamp_min(call: Called, x: Value, least: Any) -> Value:
    return clamp(call, x, least)


@operation("clamp_max")
def clamp_max(call: Called, x: Value, most: Any) -> Value:
    return clamp(call, x, None, most)


@operation("clamp", "clip", "hardtanh")
def clamp(call: Called, x: Value, least: Any = None, most: Any = None) -> Value:
    """Read a clamp by relu: max(x, a) = a + relu(x - a), min(x, b) = x - relu(x - b)."""
    if call.name == "hardtanh":
        least, most = (-1 if least is None else least), (1 if most is None else most)
    if is_value(least) or is_value(most):
        raise UnsayableError("a clamp by a tensor")
    if least is not None and most is not None and least > most:
        raise UnsayableError("a clamp with its bounds the wrong way round")
    if least is not None:
        above = _above(call, x, exact(least))
        x = total(call, [above, as_value(exact(least))], [ONE, ONE])
    if most is not None:
        x = total(call, [x, _above(call, x, exact(most))], [ONE, MINUS])
    return x


def _above(call: Called, x: Value, bound: Coefficient) -> Value:
    return entrywise(call, "relu", total(call, [x, as_value(bound)], [ONE, MINUS]))


@operation("relu6")
def relu6(call: Called, x: Value) -> Value:
    return clamp(call, x, 0, 6)


@operation("hardsigmoid")
def hardsigmoid(call: Called, x: Value) -> Value:
    sixth = Coefficient(Fraction(1, 6))
    return scaled(call, clamp(call, total(call, [x, as_value(3)], [ONE, ONE]), 0, 6), sixth)


@operation("hardswish")
def hardswish(call: Called, x: Value) -> Value:
    return product(call, [x, hardsigmoid(call, x)])


@operation("where")
def where(call: Called, condition: Any, left: Any, right: Any) -> Value:
    """Read a choice by a mask that is a tensor of 0 and 1."""
    if call.inputs[:1] != ("bool",):
        raise UnsayableError("a choice that depends on values")
    mask = as_value(condition)
    for kept, filled, where in ((left, right, mask), (right, left, None)):
        if _is_minus_infinity(filled):
            return restricted(as_value(kept), where or negated(call, mask))
    a, b = as_value(left), as_value(right)
    other = negated(call, mask)
    return total(call, [product(call, [mask, a]), product(call, [other, b])], [ONE, ONE])


@operation("masked_fill")
def masked_fill(call: Called, x: Value, mask: Value, filled: Any) -> Value:
    if call.inputs[1:2] != ("bool",):
        raise UnsayableError("a masked fill by numbers")
    other = negated(call, mask)
    if _is_minus_infinity(filled):
        return restricted(x, other)
    if x.where:
        raise UnsayableError("a mask over minus infinities")
    kept = product(call, [other, x])
    return total(call, [kept, product(call, [mask, as_value(filled)])], [ONE, ONE])


@operation("logical_not", "bitwise_not")
def logical_not(call: Called, x: Value) -> Value:
    if call.inputs != ("bool",):
        raise UnsayableError("a logical operation on numbers")
    return negated(call, x)


def _is_minus_infinity(filled: Any) -> bool:
    if isinstance(filled, Value):
        # A tensor without entries of its own that is -inf wherever it is, as `torch.tensor(-inf)`.
        return filled.where == NOWHERE
    return filled == -inf


@operation("full", "full_like", "new_full")
def full(call: Called, *arguments: Any, **_: Any) -> Value:
    return _everywhere(call, arguments[-1])


@operation("zeros", "zeros_like", "new_zeros", "zero")
def zeros(call: Called, *_: Any, **__: Any) -> Value:
    return _everywhere(call, 0)


@operation("ones", "ones_like", "new_ones")
def ones(call: Called, *_: Any, **__: Any) -> Value:
    return _everywhere(call, 1)


@operation("scalar_tensor")
def scalar_tensor(call: Called, entry: Any, **_: Any) -> Value:
    return _everywhere(call, entry)


@operation("fill")
def fill(call: Called, x: Value, entry: Any) -> Value:
    return _everywhere(call, entry)


def _everywhere(call: Called, entry: Any) -> Value:
    from polyattn.reading.operations.views import expand

    if isinstance(entry, float) and entry == -inf:
        return replace(expand(call, as_value(0)), where=NOWHERE)
    if is_value(entry):
        raise UnsayableError("a tensor filled with a tensor's entry")
    return expand(call, as_value(exact(entry)))
