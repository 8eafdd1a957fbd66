"""Arithmetic of the words in kernels: sums, products, exponentials, extremes."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from polyattn.errors import ProofError
from polyattn.verifying.ring.field import meaning, simplest
from polyattn.verifying.ring.functions import NeedsExponentials
from polyattn.verifying.ring.planes import Residues
from polyattn.verifying.ring.ring import Ring
from polyattn.verifying.ring.words import Words

LOG2_E = math.log2(math.e)
PLAIN = 2**12
"""The largest product of numerator and denominator of a number times log2(e), or of that number's square."""


class KernelValues:
    """Operations on words, in a ring.

    Attributes:
        known: the numbers that residues stand for, of constants that the kernel was seen to have.
    """

    def __init__(self, ring: Ring):
        self.ring, self.plane = ring, ring.planes[0]
        self.second = ring.planes[1] or Residues(ring.field)
        self.prime, self.order = ring.field.prime, ring.field.order or 1
        self.known: dict[int, float] = {}

    # Numbers

    def number(self, value: float) -> Words:
        """Return a Python number as a word."""
        if value == -math.inf:
            return self._constant(0, 0, infinite=True)
        if not math.isfinite(value):
            raise ProofError(f"a kernel of `candidate` has the constant {value}, which has no meaning in a ring")
        first = self.plane.number(value)
        second = self.second.number(value) if self.ring.field.order else 0
        if (plain := _times_log2_e(value)) is not None:
            # exp2 of this is exp of the number without log2(e): that is a symbol.
            symbol = self._log2_e()
            first = self.plane.number(plain) * symbol[0] % self.prime
            second = self.second.number(plain) * symbol[1] % self.order if self.ring.field.order else 0
        self.known[first] = value
        return self._constant(first, second)

    def _log2_e(self) -> tuple[int, int]:
        return self.ring.field.salt % self.prime or 1, self.ring.field.salt % self.order or 1

    @staticmethod
    def _constant(value: int, power: int, infinite: bool = False) -> Words:
        marks = np.zeros(1, bool)
        return Words(np.array([value]), np.array([power]), np.array([infinite]), marks, marks)

    def whole(self, data: Any) -> Words:
        """Return integers as words."""
        data = np.asarray(data).astype(np.int64)
        for value in np.unique(data)[:64].tolist():
            self.known[value % self.prime] = float(value)
        marks = np.zeros(data.shape, bool)
        return Words(data % self.prime, data % self.order, marks, marks, marks)

    def _positive(self, a: Words) -> np.ndarray:
        numbers = [r for r, v in self.known.items() if v > 0]
        return np.isin(a.value, numbers) & ~a.infinite

    # Rings

    def add(self, a: Words, b: Words, difference: bool = False) -> Words:
        """Return a sum; of a difference the second operand is a negative one, and -inf in it is inf."""
        return Words(
            (a.value + b.value) % self.prime,
            (a.power + b.power) % self.order,
            (a.infinite & ~b.infinite) if difference else a.infinite | b.infinite,
            a.nan | b.nan | (b.infinite if difference else False),
            a.blind | b.blind,
        )

    def negative(self, a: Words) -> Words:
        return Words(-a.value % self.prime, -a.power % self.order, a.infinite, a.nan, a.blind)

    @staticmethod
    def without_sign(a: Words) -> Words:
        """Turn -inf with a changed sign into nan."""
        return Words(a.value, a.power, np.zeros_like(a.infinite), a.nan | a.infinite, a.blind)

    def times(self, a: Words, b: Words) -> Words:
        infinite = a.infinite | b.infinite
        kept = infinite
        if infinite.any():
            # Only a number known to be positive leaves -inf as it is.
            kept = (a.infinite & self._positive(b)) | (b.infinite & self._positive(a))
        value = a.value * b.value % self.prime
        if value.size == 1 and not infinite.any():
            left, right = (self.known.get(int(x.value.reshape(-1)[0])) for x in (a, b))
            if left is not None and right is not None:
                self.known[int(value.reshape(-1)[0])] = left * right
        return Words(value, a.power * b.power % self.order, kept, a.nan | b.nan | (infinite & ~kept), a.blind | b.blind)

    def inverse(self, a: Words) -> Words:
        """Return the inverse; lanes that a mask leaves out may hold 0: an inverse of 0 is anything, if it is stored."""
        zero = a.value == 0
        self.ring.divided_by_zero |= bool(zero.any())
        salt = self.ring.field.salt
        value = self.plane.inverse(torch.from_numpy(np.where(zero, salt % self.prime, a.value))).numpy()
        power, blind = a.power, a.blind
        if self.ring.field.order:
            blind = blind | (power == 0)
            power = self.second.inverse(torch.from_numpy(np.where(power == 0, 1, power))).numpy()
        return Words(value, power, np.zeros_like(a.infinite), a.nan | a.infinite, blind)

    def quotient(self, a: Words, b: Words) -> Words:
        below = self.inverse(b)
        if a.infinite.any():
            numbers = self._positive(b)
            below = Words(below.value, below.power, below.infinite, below.nan | (a.infinite & ~numbers), below.blind)
            kept = a.infinite & numbers
            found = self.times(Words(a.value, a.power, np.zeros_like(a.infinite), a.nan, a.blind), below)
            return Words(found.value, found.power, found.infinite | kept, found.nan, found.blind)
        return self.times(a, below)

    def product(self, a: Words, b: Words, total: Words) -> Words:
        """Return a matrix product and a sum."""

        def along(left: np.ndarray, right: np.ndarray) -> np.ndarray:
            return np.asarray(left.any(-1))[..., :, None] | np.asarray(right.any(-2))[..., None, :]

        def multiplied(plane: Residues, left: np.ndarray, right: np.ndarray) -> np.ndarray:
            x, y = torch.from_numpy(np.array(left)), torch.from_numpy(np.array(right))
            return plane.bilinear(torch.matmul, x, y, left.shape[-1]).numpy()

        value = multiplied(self.plane, a.value, b.value)
        power = multiplied(self.second, a.power, b.power) if self.ring.field.order else np.zeros_like(value)
        return Words(
            (value + total.value) % self.prime,
            (power + total.power) % self.order,
            np.zeros(value.shape, bool),
            along(a.nan | a.infinite, b.nan | b.infinite) | total.nan | total.infinite,
            along(a.blind, b.blind) | total.blind,
        )

    def total(self, a: Words, axis: Any, keep: bool) -> Words:
        """Return the sum along an axis."""
        return Words(
            a.value.sum(axis=axis, keepdims=keep) % self.prime,
            a.power.sum(axis=axis, keepdims=keep) % self.order,
            np.asarray(a.infinite.any(axis=axis, keepdims=keep)),
            np.asarray(a.nan.any(axis=axis, keepdims=keep)),
            np.asarray(a.blind.any(axis=axis, keepdims=keep)),
        )

    def scan(self, a: Words, axis: int) -> Words:
        """Return the running sums along an axis."""
        marks = (np.logical_or.accumulate(m, axis=axis) for m in (a.infinite, a.nan, a.blind))
        return Words(a.value.cumsum(axis=axis) % self.prime, a.power.cumsum(axis=axis) % self.order, *marks)

    # Functions

    def exponential(self, a: Words, factor: int = 1) -> Words:
        """Return the base to the power of the words, times a factor; an exponential of -inf is 0."""
        if not self.ring.field.order:
            raise NeedsExponentials
        self.ring.exponentials = True
        if (a.blind & ~a.infinite & ~a.nan).any():
            raise ProofError("a kernel of `candidate` takes an exponential of what is known as a value only, such as "
                             "another exponential, which is not followed in a ring")  # fmt: skip
        value = self.ring.field.exponential(torch.from_numpy(a.power * factor % self.order)).numpy()
        marks = np.zeros_like(a.infinite)
        return Words(np.where(a.infinite, 0, value), np.zeros_like(value), marks, a.nan, np.ones_like(marks))

    def power_of_two(self, a: Words) -> Words:
        """Return 2 to the power of the words, an exponential of them over log2(e)."""
        symbol = self._log2_e()[1]
        return self.exponential(a, pow(symbol, -1, self.order) if self.ring.field.order else 1)

    def opaque(self, name: str, a: Words) -> Words:
        """Return a function of which only the name is known; of constants the root is exact."""
        if name == "sqrt" and set(np.unique(a.value).tolist()) <= self.known.keys() and not a.infinite.any():
            return self._roots(a)
        return self._carried(name, (a,), a)

    def _roots(self, a: Words) -> Words:
        value, power = np.zeros_like(a.value), np.zeros_like(a.power)
        for residue in np.unique(a.value).tolist():
            number = self.known[residue]
            root = self.number(math.sqrt(number)) if number >= 0 else self._constant(0, 0)
            here = a.value == residue
            value[here], power[here] = root.value[0], root.power[0]
        return Words(value, power, a.infinite, a.nan, a.blind)

    def _carried(self, name: str, operands: tuple[Words, ...], like: Words) -> Words:
        """Return a symmetric function of the operands, known by its name."""
        self.ring.opaque.add(name)

        def on(plane: Residues, parts: list[np.ndarray]) -> np.ndarray:
            values = [plane.opaque(name, torch.from_numpy(np.array(p))) for p in parts]
            if len(values) == 1:
                return values[0].numpy()
            both = values[0]
            for value in values[1:]:
                both = plane.add(both, value)
            return plane.opaque(name, both).numpy()

        value = on(self.plane, [o.value for o in operands])
        power = on(self.second, [o.power for o in operands]) if self.ring.field.order else np.zeros_like(value)
        nan = like.nan | like.infinite
        return Words(value, power, np.zeros_like(nan), nan, like.blind)

    def larger(self, name: str) -> Callable[[Words, Words], Words]:
        """Return the larger, or smaller, of two: a symmetric function, without laws but max(-inf, b) = b."""
        kind = "maximum" if "max" in name else "minimum"

        def compute(a: Words, b: Words) -> Words:
            for one, other in ((a, b), (b, a)):
                if kind == "maximum" and not (other.value.any() or other.infinite.any() or one.infinite.any()):
                    return self._carried("relu", (one,), one)
            shape = np.broadcast_shapes(a.value.shape, b.value.shape)
            a, b = (Words(*(np.broadcast_to(part, shape) for part in vars(w).values())) for w in (a, b))
            marks = a.infinite & b.infinite, a.nan | b.nan, a.blind | b.blind
            finite = Words(a.value, a.power, np.zeros(shape, bool), *marks[1:])
            both = self._carried(kind, (a, b), finite)
            if kind == "minimum":
                return Words(both.value, both.power, a.infinite | b.infinite, *marks[1:])
            value = np.where(a.infinite, b.value, np.where(b.infinite, a.value, both.value))
            power = np.where(a.infinite, b.power, np.where(b.infinite, a.power, both.power))
            return Words(value, power, *marks)

        return compute

    def extreme(self, name: str, a: Words, axis: Any, keep: bool) -> Words:
        """Return the maximum or minimum along an axis: a symmetric function of the entries above -inf."""
        self.ring.opaque.add(name)
        if name == "amin" and a.infinite.any():
            raise ProofError("a kernel of `candidate` takes a minimum of -inf, which is not followed in a ring")

        def along(plane: Residues, part: np.ndarray) -> np.ndarray:
            values = plane.opaque(name, torch.from_numpy(np.array(part))).numpy()
            total = np.where(a.infinite, 0, values).sum(axis=axis, keepdims=keep) % plane.field.prime
            return plane.opaque(name, torch.from_numpy(np.asarray(total))).numpy()

        value = along(self.plane, a.value)
        return Words(
            value,
            along(self.second, a.power) if self.ring.field.order else np.zeros_like(value),
            np.asarray(a.infinite.all(axis=axis, keepdims=keep)),
            np.asarray(a.nan.any(axis=axis, keepdims=keep)),
            np.asarray(a.blind.any(axis=axis, keepdims=keep)),
        )


def _times_log2_e(value: float) -> float | None:
    """Return the plain number, or root of one, that a float is with log2(e), the factor of kernels that take exp2."""
    rational, roots = meaning(value)
    if value == 0 or (not roots and abs(rational.numerator) * rational.denominator < 2**35) or roots:
        return None
    rest = value / LOG2_E
    near = simplest(Fraction(rest), 24)
    if abs(near.numerator) * near.denominator <= PLAIN:
        return float(near)
    square = simplest(Fraction(rest) ** 2, 22)
    if abs(square.numerator) * square.denominator <= PLAIN:
        return math.copysign(math.sqrt(square), rest)
    return None
