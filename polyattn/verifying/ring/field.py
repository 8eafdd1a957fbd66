"""Arithmetic modulo a prime below 2^31 on int64 tensors, and the numbers that Python floats stand for there."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from random import Random
from zlib import crc32

import torch
from sympy import factorint, isprime
from torch import Tensor

from polyattn.errors import BudgetError, ProofError

HALF = 2**16
"""Residues are split into halves of 16 bits, whose products float64 adds exactly."""

LONGEST = 2**20
"""The most terms of a sum of products of halves: below 2^53 in all."""

LARGEST_FACTORED = 2**80
"""The largest product of numerator and denominator under a root."""

ZERO_AT_ZERO = frozenset(
    """abs relu gelu elu sin erf sqrt mish hardswish leaky_relu log1p expm1 selu celu""".split()  # noqa: SIM905
)
"""Functions that are 0 at 0; lanes of kernels that a mask leaves out rely on it."""


class Unlucky(Exception):
    """A prime or point at which the candidate has no value: another is drawn.

    Attributes:
        root: a prime number that has to be a square modulo the next prime; 0 if a division by 0 was met.
    """

    def __init__(self, root: int = 0):
        super().__init__()
        self.root = root


@dataclass(frozen=True)
class Field:
    """The integers modulo a prime.

    Attributes:
        prime: odd, below 2^31.
        base: for exponents modulo `order`, an element of that order; 0 where exponentials have no meaning.
        order: a prime that divides `prime` - 1.
        salt: odd number that makes opaque functions differ from run to run.
    """

    prime: int
    base: int = 0
    order: int = 0
    salt: int = 1

    def rational(self, number: Fraction | int) -> int:
        """Return a rational number's residue; raise Unlucky if the prime divides its denominator."""
        number = Fraction(number)
        if number.denominator % self.prime == 0:
            raise Unlucky(0)
        return number.numerator * pow(number.denominator, -1, self.prime) % self.prime

    def root(self, number: Fraction, times: int = 1) -> int:
        """Return the square root of a positive rational, taken so often, as a product of roots of prime numbers.

        Among the two roots it is the one that is a square itself, so that roots of roots exist, and products of roots
        are roots of products.

        Raises:
            Unlucky: a prime factor is not a square modulo the prime.
            ProofError: the number is negative or too long to be factored.
        """
        whole = number.numerator * number.denominator
        if whole < 0 or whole > LARGEST_FACTORED:
            raise ProofError(f"the root of {number} cannot be carried exactly")
        if whole == 0:
            return 0
        result = 1
        for factor, exponent in factorint(number.numerator).items():
            result = result * pow(self._prime_root(factor, times), exponent, self.prime) % self.prime
        for factor, exponent in factorint(number.denominator).items():
            result = result * pow(self._prime_root(factor, times), -exponent, self.prime) % self.prime
        return result

    def _prime_root(self, number: int, times: int) -> int:
        if not self.has_root(number):
            raise Unlucky(number)
        root = number % self.prime
        for _ in range(times):
            # The prime is 3 modulo 4, where this power of a square is its root that is a square.
            root = pow(root, (self.prime + 1) // 4, self.prime)
        return root

    def has_root(self, number: int) -> bool:
        """Return whether a number is a square other than 0."""
        return pow(number, (self.prime - 1) // 2, self.prime) == 1

    def number(self, value: float, bits: int = 53) -> int:
        """Return the residue of the number that a Python float stands for; see `meaning`."""
        rational, roots = meaning(value, bits)
        if not roots:
            return self.rational(rational)
        return self.root(rational, roots) * (1 if value > 0 else -1) % self.prime

    def power(self, a: Tensor, exponent: int) -> Tensor:
        """Return a power; a negative one is of the inverse."""
        if exponent < 0:
            return self.power(self.inverse(a), -exponent)
        result = torch.ones_like(a)
        while exponent:
            if exponent % 2:
                result = result * a % self.prime
            a, exponent = a * a % self.prime, exponent // 2
        return result

    def inverse(self, a: Tensor) -> Tensor:
        """Return the inverses; raise Unlucky where an element is 0."""
        if not bool(a.all()):
            raise Unlucky(0)
        return self.power(a, self.prime - 2)

    def bilinear(self, product: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor, terms: int) -> Tensor:
        """Return a sum of products, such as `torch.mm`, of residues: four times in float64, on halves of 16 bits.

        Args:
            terms: the number of products in each entry.

        Raises:
            BudgetError: these are more than 2^20.
        """
        if terms > LONGEST:
            raise BudgetError(f"a sum of {terms:,} products is too long for exact arithmetic; the limit is {LONGEST:,}")
        low_a, high_a = (a % HALF).double(), (a // HALF).double()
        low_b, high_b = (b % HALF).double(), (b // HALF).double()
        p = self.prime

        def part(x: Tensor, y: Tensor) -> Tensor:
            return product(x, y).long() % p

        high = part(high_a, high_b) * HALF % p
        middle = (part(high_a, low_b) + part(low_a, high_b) + high) % p
        return (middle * HALF + part(low_a, low_b)) % p

    def exponential(self, exponents: Tensor) -> Tensor:
        """Return the powers of `base`, an image of exp: sums of exponents become products."""
        result, square = torch.ones_like(exponents), self.base
        bits = exponents
        while bool(bits.any()):
            result = torch.where(bits % 2 == 1, result * square % self.prime, result)
            square, bits = square * square % self.prime, bits // 2
        return result

    def opaque(self, name: str, a: Tensor) -> Tensor:
        """Return a function of which only the name is known, entry by entry; it is 0 at 0 where its namesake is."""
        # A checksum, since names that differ in the order of digits are other functions.
        seed = self.salt * (crc32(name.encode()) + 1) % self.prime
        value = self.power((a + seed) % self.prime, 5) * (seed + 1) + a
        if name in ZERO_AT_ZERO:
            value = value - pow(seed, 5, self.prime) * (seed + 1)
        return value % self.prime


def draw_field(random: Random, bits: int, exponentials: bool, roots: Iterable[int] = ()) -> Field:
    """Draw a prime, 3 modulo 4, at random; with exponentials it is 1 more than twice another one.

    Args:
        bits: of the prime.
        exponentials: whether the field has to carry exponentials of exponents modulo another prime.
        roots: prime numbers that have to be squares modulo both.
    """
    salt = random.randrange(1, 2 ** (bits - 1), 2)
    least = 2 ** (bits - 2 if exponentials else bits - 1)
    while True:
        number = least + random.randrange(3, least, 4)
        if not isprime(number) or (exponentials and not isprime(2 * number + 1)):
            continue
        found = Field(number, salt=salt)
        if exponentials:
            # Every square but 1 has this prime as its order: it is the only odd divisor of the larger one less 1.
            base = pow(random.randrange(2, 2 * number), 2, 2 * number + 1)
            found = Field(2 * number + 1, base, number, salt)
        if all(f.has_root(r) for r in roots for f in (found, *([Field(number)] if exponentials else []))):
            return found


@lru_cache(maxsize=65536)
def meaning(value: float, bits: int = 53) -> tuple[Fraction, int]:
    """Return the simplest rational that rounds to a float, or the one whose square root or fourth root does.

    0.001275510204081632 is 1/784, 0.17677669529663687 the square root of 1/32, 0.420448207626857 the fourth.

    Args:
        bits: significant bits of the float's dtype.

    Returns:
        The rational, and how many times its square root is to be taken.
    """
    if not math.isfinite(value):
        raise ProofError(f"{value} has no meaning in a ring")
    exact = Fraction(value)
    near = simplest(exact, bits)
    limit = 2 ** (bits * 2 // 3)
    if abs(near.numerator) * near.denominator > limit:
        # A power of a rounded root is off by a few units in the last place.
        for roots in (1, 2):
            power = simplest(exact ** (2**roots), bits - 1 - roots)
            if abs(power.numerator) * power.denominator <= limit >> 8:
                return power, roots
    return near, 0


def simplest(value: Fraction, bits: int) -> Fraction:
    """Return the fraction of least denominator within half a unit of `bits` significant bits around a value."""
    if value < 0:
        return -simplest(-value, bits)
    if value == 0:
        return value
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    while Fraction(2) ** exponent > value:
        exponent -= 1
    while Fraction(2) ** (exponent + 1) <= value:
        exponent += 1
    half = Fraction(2) ** (exponent - bits)
    return _between(value - half, value + half)


def _between(low: Fraction, high: Fraction) -> Fraction:
    """Return the fraction of least denominator in a closed interval of positive numbers, by continued fractions."""
    whole = low.numerator // low.denominator
    if whole == low:
        return Fraction(whole)
    if whole + 1 <= high:
        return Fraction(whole + 1)
    rest = _between(1 / (high - whole), 1 / (low - whole))
    return whole + 1 / rest
