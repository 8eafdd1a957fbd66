"""The modular level: the graph modulo a random prime, at a random point, against the expanded monomials.

The grounds for trusting a yes: if the graph and the definition differ in an entry, their difference there is a nonzero
polynomial with rational coefficients. Modulo the prime it stays nonzero unless the prime divides the numerators of all
its coefficients: an integer of h bits has fewer than h / b prime divisors of more than b bits, and more than
3/5 2^b / (b ln 2) of them lie below 2^(b+1) (Rosser and Schoenfeld 1962). A nonzero polynomial of degree d is zero at a
random point with a chance of at most d / p (Schwartz 1980, Zippel 1979).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm, prod
from random import Random
from typing import Any

import numpy as np
import torch
from sympy import isprime
from torch import fx

from polyattn.algebra import Index, Monomial, TensorFactor
from polyattn.algebra.monomial import power_value
from polyattn.errors import ProofError
from polyattn.language import value_of
from polyattn.language.syntax import is_fixed
from polyattn.proving.evaluation import Arithmetic, Point, evaluate
from polyattn.verifying.exact import rational
from polyattn.verifying.verification import Verification
from polyattn.verifying.verify_target import BATCH, Subject, running

ONE = Fraction(1)
DEFAULT_BUDGET = 50_000_000
SECURITY = 100
"""The chance of a wrong graph to pass is at most 2 to minus this."""

ENTRIES = 40
"""Every sum in a graph has fewer than 2^40 terms."""


@dataclass(frozen=True)
class Height:
    """Bounds for a polynomial with rational coefficients.

    Attributes:
        degree: in all symbols.
        denominator, hidden: some number below 2^hidden times the denominator is a common denominator.
        bits: the sum of the absolute values of the numerators over that denominator is at most 2 to this.
    """

    degree: int = 0
    denominator: int = 1
    hidden: int = 0
    bits: int = 0

    def __mul__(self, other: Height) -> Height:
        return Height(
            self.degree + other.degree,
            self.denominator * other.denominator,
            self.hidden + other.hidden,
            self.bits + other.bits,
        )

    def __add__(self, other: Height) -> Height:
        common = lcm(self.denominator, other.denominator)
        # Each side's numerators grow by the factor that brings them to the common denominator.
        mine = self.bits + (common // self.denominator).bit_length() + other.hidden
        theirs = other.bits + (common // other.denominator).bit_length() + self.hidden
        # The sum of two numbers of n bits has at most n + 1.
        return Height(max(self.degree, other.degree), common, self.hidden + other.hidden, max(mine, theirs) + 1)

    @classmethod
    def constant(cls, number: Fraction) -> Height:
        return cls(0, number.denominator, 0, abs(number.numerator).bit_length())


MANY = Height(bits=ENTRIES)
"""The factor of a sum of fewer than 2^40 terms."""


def check_modular(subject: Subject, seed: int, budget: int | None) -> Verification:
    """Check a subject modulo a random prime; see `verify`."""
    subject.require_polynomial("modular")
    subject.require_budget(DEFAULT_BUDGET if budget is None else budget)
    # Prime and point come from one seed, so that a result can be reproduced.
    random = Random(seed)
    height = Height()
    with running():  # a graph without a height cannot run either, which `subject.run` then says
        height = _graphs_height(subject)
    # The difference of graph and definition is bounded like their sum.
    difference = _definition_height(subject) + height
    prime, bound = random_prime(random, difference)
    arithmetic = Arithmetic(
        object, lambda q: q.numerator * pow(q.denominator, -1, prime) % prime, lambda array: array % prime
    )

    def uniform(_: str, shape: tuple[int, ...]) -> np.ndarray:
        array = np.empty(shape, dtype=object)
        for place in np.ndindex(*shape):
            array[place] = random.randrange(prime)
        return array

    tensors = subject.fill(uniform)
    have = subject.run(tensors, arithmetic)
    want = definition(subject, tensors, arithmetic)
    checks = subject.compare(have, want, lambda a, b: a != b)
    derivatives = " and its formal derivatives" if subject.derivative else ""
    return Verification(
        "modular",
        str(subject.spec),
        tuple(sorted(subject.sizes.items())),
        subject.words,
        f"modulo a random prime of {prime.bit_length()} bits at a random point, a batch of {BATCH}, against the "
        f"expanded sum of products{derivatives}; a wrong graph would pass with a chance of at most "
        f"2^-{_minus_log2(bound)} (degree {difference.degree})",
        checks,
        bound,
        seed,
    )


def definition(
    subject: Subject, tensors: Mapping[str, np.ndarray], arithmetic: Arithmetic, scale: Fraction = ONE
) -> dict[str, np.ndarray]:
    """Return the output and, if requested, the gradients: the monomials one by one, by elimination.

    Args:
        scale: common factor of the tensors' entries, so that these may be integers.
    """
    samples = [Point(subject.sizes, sample) for sample in subject.samples(tensors)]

    def values(terms: Iterable[Monomial], output: Sequence[Index]) -> np.ndarray:
        scaled = [term.scaled(scale ** _count_tensors(term)) for term in terms]
        return np.stack([evaluate(scaled, output, point, arithmetic) for point in samples])

    expansion, name = subject.spec.expansion(), subject.spec.output
    found = {name: values(expansion.terms, expansion.output).reshape(subject.shape(name, batch=True))}
    for tensor in subject.tensors if subject.derivative else ():
        gradient = subject.spec.polynomial().derivative(tensor, subject.plan.seed)
        parts = values(gradient.terms, gradient.signature.output_indices())
        # A parameter's gradient is summed over the batch, an input's is not.
        if tensor in subject.spec.parameters:
            parts = _object(arithmetic.settle(_object(parts.sum(axis=0))))
        found[subject.gradients[tensor]] = parts.reshape(subject.shape(tensor, batch=True))
    return found


def _count_tensors(term: Monomial) -> int:
    return sum(isinstance(f, TensorFactor) and not is_fixed(f.tensor) for f in term.factors)


def _object(value: Any) -> np.ndarray:
    """Return an array; numpy gives bare numbers for arrays without axes."""
    return np.asarray(value, dtype=object)


def random_prime(random: Random, difference: Height) -> tuple[int, Fraction]:
    """Draw a prime for polynomials of this height; return it with the chance of a false yes."""
    # The extra bits leave room for degree and height in the bound.
    bits = SECURITY + 27
    while (bound := _bound(bits, difference)) > Fraction(1, 2**SECURITY):
        bits += 8
    # Odd numbers between 2^bits and 2^(bits+1), uniformly, until one is prime.
    while not isprime(number := 2**bits + random.randrange(1, 2**bits, 2)):
        pass
    return number, bound


def _bound(bits: int, difference: Height) -> Fraction:
    """Bound the chance for primes between 2^bits and 2^(bits+1), more than 3/5 2^bits / (bits ln 2) of them."""
    # 13/10 is below 1 / ln 2, so the primes are not overcounted.
    primes = Fraction(3 * 2**bits, 5 * bits) * Fraction(13, 10)
    return Fraction(difference.degree, 2**bits) + Fraction(difference.bits + difference.hidden + 1, bits) / primes


def _minus_log2(bound: Fraction) -> int:
    return (bound.denominator // max(bound.numerator, 1)).bit_length() - 1


def _definition_height(subject: Subject) -> Height:
    """Bound the height of the definition and its gradients: their coefficients grow by at most a monomial's factors."""
    total = Height()
    for term in subject.spec.expansion().terms:
        number = term.coefficient * prod((power_value(s, e, subject.sizes) for s, e in term.powers), start=ONE)
        # Each monomial counts once per value of its indices and sample.
        summed = BATCH * value_of((i.size for i in term.indices()), subject.sizes)
        count = len(term.factors)
        total = total + Height.constant(number) * Height(degree=count, bits=summed.bit_length() + count.bit_length())
    return total * Height(degree=1) if subject.derivative else total


def _graphs_height(subject: Subject) -> Height:
    arguments = [Height(degree=1)] * len(subject.tensors)
    outputs: list[Height] = []
    for passes in subject.passes:
        found = graph_heights(passes.forward, arguments)
        outputs += found
        if passes.backward is not None:
            outputs += graph_heights(passes.backward, [Height(degree=1), *arguments, *found[1:]])
    return Height(
        max(h.degree for h in outputs),
        max(h.denominator for h in outputs),
        max(h.hidden for h in outputs),
        max(h.bits for h in outputs),
    )


def graph_heights(module: fx.GraphModule, arguments: Sequence[Height]) -> list[Height]:
    """Return bounds for every entry of each of a lowered graph's outputs."""
    heights: dict[fx.Node, Height] = {}
    rest = iter(arguments)
    for node in module.graph.nodes:
        if node.op == "output":
            return [heights[n] for n in node.all_input_nodes]
        heights[node] = next(rest) if node.op == "placeholder" else _node_height(node, heights)
    raise ProofError("the graph has no output")


def _node_height(node: fx.Node, heights: Mapping[fx.Node, Height]) -> Height:
    before = [heights[a] for a in node.args if isinstance(a, fx.Node)]
    constants = Height()
    if node.target in (torch.mul, torch.add, torch.sub, torch.baddbmm):
        for value in (*node.args, *node.kwargs.values()):
            if isinstance(value, float | int):
                # All constants of a node count as factors, whatever their role: the bound only grows by
                # that.
                constants = constants * Height.constant(rational(node, value))
    if node.target in (torch.matmul, torch.mul):
        return prod(before, start=constants) * MANY
    if node.target is torch.baddbmm:
        return (before[0] + before[1] * before[2] * MANY) * constants
    if node.target in (torch.add, torch.sub):
        return (before[0] + prod(before[1:], start=Height())) * constants
    if node.target == "sum":
        return before[0] * MANY
    if node.target == "mean":
        # A mean divides by a number below 2^40, which the denominator does not name.
        return before[0] * Height(hidden=ENTRIES, bits=ENTRIES)
    # Operations that only move numbers keep their bounds.
    return Height() if node.target in ("new_ones", "new_zeros", "size") or not before else before[0]
