"""Products as networks: monomials whose indices have numbers of their own, with fixed tensors and parameters apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import count

from polyattn.algebra import FunctionFactor, Index, Monomial, Polynomial, TensorFactor
from polyattn.algebra.monomial import Powers


@dataclass(frozen=True)
class Node:
    """A tensor of a product, with the index of each atomic slot."""

    name: str
    slots: tuple[int, ...]


@dataclass(frozen=True)
class Applied:
    """A function of a sum: the indices that it runs over, those at which it is read, and those of its surroundings."""

    name: str
    over: tuple[int, ...]
    at: tuple[int, ...]
    free: tuple[int, ...]
    terms: tuple[Product, ...]


@dataclass(frozen=True)
class Product:
    """A monomial: its number, and its factors by kind.

    Attributes:
        coefficient, powers: the number in front of it.
        fixed: inputs, identities and conditions: tensors that nothing may be put in for.
        parameters, functions: its other factors.
    """

    coefficient: Fraction
    powers: Powers
    fixed: tuple[Node, ...]
    parameters: tuple[Node, ...]
    functions: tuple[Applied, ...]

    @property
    def indices(self) -> tuple[int, ...]:
        """Return the indices of its factors, each once; not those inside of functions."""
        inside = [i for f in self.functions for i in (*f.free, *f.at)]
        return tuple(dict.fromkeys([i for n in (*self.fixed, *self.parameters) for i in n.slots] + inside))


@dataclass(frozen=True)
class Network:
    """A sum of products over indices that are numbered once in the whole sum, with the atomic size of each."""

    output: tuple[int, ...]
    terms: tuple[Product, ...]
    sizes: Mapping[int, str]


def network(polynomial: Polynomial, parameters: Iterable[str]) -> Network:
    """Return a polynomial as a network; tensors outside of `parameters` are fixed."""
    return _Builder(frozenset(parameters)).run(polynomial)


class _Builder:
    def __init__(self, parameters: frozenset[str]):
        self.parameters, self.sizes, self.fresh = parameters, {}, count()

    def run(self, polynomial: Polynomial) -> Network:
        scope: dict[Index, int] = {}
        output = tuple(self.number(i, scope) for i in polynomial.signature.output_indices())
        terms = tuple(self.product(t, dict(scope)) for t in polynomial.terms)
        return Network(output, terms, self.sizes)

    def number(self, index: Index, scope: dict[Index, int]) -> int:
        if index not in scope:
            scope[index] = next(self.fresh)
            self.sizes[scope[index]] = index.size
        return scope[index]

    def numbers(self, indices: Sequence[Index], scope: dict[Index, int]) -> tuple[int, ...]:
        return tuple(self.number(i, scope) for i in indices)

    def product(self, term: Monomial, scope: dict[Index, int]) -> Product:
        fixed, parameters, functions = [], [], []
        for factor in term.factors:
            if isinstance(factor, TensorFactor):
                node = Node(factor.tensor, self.numbers(factor.indices, scope))
                (parameters if factor.tensor in self.parameters else fixed).append(node)
            else:
                functions.append(self.function(factor, scope))
        return Product(term.coefficient, term.powers, tuple(fixed), tuple(parameters), tuple(functions))

    def function(self, factor: FunctionFactor, scope: dict[Index, int]) -> Applied:
        at, free = self.numbers(factor.at, scope), self.numbers(factor.free, scope)
        # Inside, only the shared indices are the same; ids of others may be used again.
        inside = dict(zip(factor.free, free, strict=True))
        over: list[int] = []
        for index in factor.over:
            inside.pop(index, None)
            over.append(self.number(index, inside))
        terms = tuple(self.product(t, dict(inside)) for t in factor.terms)
        return Applied(factor.function, tuple(over), at, free, terms)
