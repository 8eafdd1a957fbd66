"""A specification's value by loops over its indices: the meaning of the language, and slow."""

from collections import Counter
from itertools import product
from math import exp, prod

import numpy as np

from polyattn import Spec
from polyattn.language.syntax import Access, Bracket, Call, Number, SizeRef, Sum, Term


class Loops:
    def __init__(self, spec: Spec, tensors: dict[str, np.ndarray], sizes: dict[str, int]):
        self.spec, self.values = spec, {name: np.asarray(a) for name, a in tensors.items()}
        self.known = spec.sizes.solve(sizes)

    def output(self) -> np.ndarray:
        for number, definition in enumerate(self.spec.statements.definitions):
            letters = self.spec.resolved.index_sizes[number]
            self.lengths = {name: self.number(atoms) for name, atoms in letters.items()}
            target, body = definition.target, definition.body
            value = np.zeros([self.number(atoms) for atoms in self.spec.shape(definition.name)])
            for at in self.assignments(target.indices):
                value[self.place(target, at)] = self.call(body, at) if isinstance(body, Call) else self.sum(body, at)
            self.values[definition.name] = value
        return self.values[self.spec.output]

    def number(self, atoms) -> int:
        return prod(int(a) if a.isdigit() else self.known[a] for a in atoms)

    def assignments(self, indices):
        names = tuple(dict.fromkeys(indices))
        for values in product(*(range(self.lengths[name]) for name in names)):
            yield dict(zip(names, values, strict=True))

    def place(self, access: Access, at: dict[str, int]) -> tuple[int, ...]:
        def slot(indices) -> int:
            position = 0
            for index in indices:
                position = position * self.lengths[index] + at[index]
            return position

        return tuple(slot(s.indices) for s in access.slots)

    def call(self, call: Call, at: dict[str, int]) -> float:
        def line() -> list[float]:
            return [self.sum(call.argument, at | other) for other in self.assignments(call.over)]

        if call.function in ("relu", "sigmoid"):
            value = self.sum(call.argument, at)
            return max(value, 0.0) if call.function == "relu" else 1 / (1 + exp(min(-value, 700)))
        if call.function == "softmax":
            return 1 / sum(exp(min(other - self.sum(call.argument, at), 700)) for other in line())
        if call.function == "normalize":
            return self.sum(call.argument, at) / max(sum(map(abs, line())), 1e-12)
        return max(line()) if call.function == "max" else sum(line()) / len(line())

    def sum(self, total: Sum, at: dict[str, int]) -> float:
        return sum(self.term(term, at) for term in total.terms)

    def term(self, term: Term, at: dict[str, int]) -> float:
        """What only one bracket has is summed inside of it, everything else here."""
        counts = Counter(i for f in term.factors if isinstance(f, Bracket) for i in set(indices_of(f)))
        here = {i for f in term.factors if isinstance(f, Access) for i in f.indices}
        here |= {i for i, count in counts.items() if count > 1}
        value = 0.0
        for own in self.assignments(sorted(here - set(at))):
            factors = (self.factor(f, at | own) for f in term.factors)
            value += prod(1 / f if divide else f for f, divide in zip(factors, term.divides, strict=True))
        return -value if term.negative else value

    def factor(self, factor, at: dict[str, int]) -> float:
        if isinstance(factor, Number):
            return float(factor.value)
        if isinstance(factor, SizeRef):
            return self.number(self.spec.sizes.atoms(factor.size))
        if isinstance(factor, Bracket):
            return self.sum(factor.body, at)
        place = self.place(factor, at)
        return float(len(set(place)) == 1) if factor.tensor == "I" else float(self.values[factor.tensor][place])


def indices_of(factor):
    if isinstance(factor, Access):
        yield from factor.indices
    elif isinstance(factor, Bracket):
        for term in factor.body.terms:
            for inner in term.factors:
                yield from indices_of(inner)
