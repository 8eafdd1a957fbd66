"""Causal specifications with the past kept: an output row from kept tensors of earlier positions.

Where a sum over positions is not a recurrence (softmax without features) or not all of the past (a window), a step
needs earlier positions one by one. A product at an earlier position is computed when that position comes, over the
channels through which it is read (keys and values, not the input), and kept. The equations are specifications again,
of new positions (rows) and of all that are kept; conditions between the two are masks, parameters of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache
from itertools import count, product
from math import prod

from polyattn.algebra import FunctionFactor, Index, Monomial, Polynomial, Spec, TensorFactor
from polyattn.algebra.canonical import canonical_monomial, canonical_order, collect_arguments
from polyattn.algebra.monomial import Factor
from polyattn.errors import RecurrenceError
from polyattn.language import Atoms, value_of
from polyattn.language.conditions import is_condition
from polyattn.language.syntax import IDENTITY
from polyattn.planning.position_bounds import Bounds, bounds_of, chosen, closed
from polyattn.planning.steps import Sizes, numel

ASSIGNMENTS = 4096
"""The ways to share parameters out among positions that are tried."""


@dataclass(frozen=True)
class Mask:
    """A condition between positions as a tensor of zeros and ones; `rows` says which of its axes are of new ones."""

    name: str
    condition: str
    rows: tuple[bool, ...]


@dataclass(frozen=True)
class Kept:
    """Kept of each position: a tensor over channels, with the specification of its value at new positions."""

    name: str
    channels: tuple[str, ...]
    rows: Spec


@dataclass(frozen=True)
class Past:
    """A causal specification with the past kept.

    Attributes:
        size: the ordered atomic size; in the equations the number of positions kept, new ones included.
        row: the size of new positions in the equations.
        kept: tensors kept of each position, inner ones first.
        output: the specification of the output at new positions.
        masks: the conditions in the equations.
        reach: the positions before a new one that it reads; None for all of them.
    """

    size: str
    row: str
    kept: tuple[Kept, ...]
    output: Spec
    masks: tuple[Mask, ...]
    reach: int | None

    def numbers(self, known: Sizes) -> int:
        """Return how many numbers are kept of each position."""
        return sum(prod(value_of((a,), known) for a in k.channels) for k in self.kept)

    @property
    def parts(self) -> tuple[Spec, ...]:
        return (*(k.rows for k in self.kept), self.output)


@lru_cache(maxsize=128)
def past(spec: Spec, size: str, sizes: tuple[tuple[str, int], ...]) -> Past:
    """Return a causal specification with the past kept along an atomic size.

    Args:
        sizes: numbers of all other atomic sizes.

    Raises:
        RecurrenceError: an output reads positions behind it, or what it reads of a position needs later ones.
    """
    return _Maker(spec, size, dict(sizes)).run()


@dataclass
class _Maker:
    spec: Spec
    size: str
    sizes: Sizes
    kept: list[Kept] = field(default_factory=list)
    known: dict[object, int] = field(default_factory=dict)
    masks: dict[tuple[str, tuple[bool, ...]], Mask] = field(default_factory=dict)
    reach: int | None = 0

    def run(self) -> Past:
        spec = self.spec
        taken = {*spec.inputs, *spec.parameters, spec.output, *spec.sizes.names}
        self.row = next(n for k in count() if (n := f"Rows{k or ''}") not in taken)
        self.stem = "cache" if not any(t.startswith("cache") for t in taken) else "cache_"
        self.mask_stem = "mask" if not any(t.startswith("mask") for t in taken) else "mask_"
        expansion = spec.expansion()
        now = [i for i in expansion.output if i.size == self.size]
        if len(now) != 1:
            raise RecurrenceError(
                f"a step gives one position of the output, but {spec.output} has {len(now) or 'no'} slots of size "
                f"{self.size}"
            )
        self.shapes: dict[str, tuple[Atoms, ...]] = {}
        output = self.spec_of(spec.output, spec.shape(spec.output), expansion.terms, now[0], expansion.output)
        return Past(self.size, self.row, tuple(self.kept), output, tuple(self.masks.values()), self.reach)

    def refuse(self, reason: str) -> RecurrenceError:
        return RecurrenceError(f"{self.spec.output} cannot be computed from the past along {self.size}: {reason}")

    def spec_of(
        self, name: str, shape: tuple[Atoms, ...], terms: Sequence[Monomial], now: Index, free: Sequence[Index]
    ) -> Spec:
        """Return the specification of a sum at new positions."""
        found = [self.monomial(t, now, tuple(free), {}) for t in terms]
        signature = self.spec.signature

        def rowed(slots: tuple[Atoms, ...]) -> tuple[Atoms, ...]:
            return tuple(tuple(self.row if a == self.size else a for a in slot) for slot in slots)

        here = Index(now.id, self.row)
        names = {(here if i == now else i): Index(k, (here if i == now else i).size) for k, i in enumerate(free)}
        moved = []
        for term in found:
            own = [i for i in dict.fromkeys(term.all_indices()) if i not in names]
            moved.append(term.renamed(names | {i: Index(len(names) + k, i.size) for k, i in enumerate(own)}))
        read = dict.fromkeys(name for t in moved for name in _tensors(t))
        shapes = {t: rowed(signature.shapes[t]) for t in read if t in self.spec.inputs}
        shapes |= {t: signature.shapes[t] for t in read if t in self.spec.parameters}
        shapes |= {t: s for t, s in self.shapes.items() if t in read}
        inputs = tuple(t for t in shapes if t in self.spec.inputs or t.startswith(self.stem))
        if not inputs:
            # Positions that are only counted: any input says how many there are.
            first = next(t for t in self.spec.inputs if any(self.size in slot for slot in signature.shapes[t]))
            inputs, shapes[first] = (first,), rowed(signature.shapes[first])
        output = rowed(shape)
        made = Polynomial.of(replace(signature, inputs=inputs, output=name, output_shape=output, shapes=shapes), moved)
        return Spec.of(made)

    def monomial(self, term: Monomial, now: Index, free: tuple[Index, ...], given: Bounds) -> Monomial:
        """Return a product at a new position, its earlier positions read through kept tensors.

        Args:
            free: the indices that are not summed.
            given: the bounds of positions that the surroundings fix.
        """
        exponent = dict(term.powers).get(self.size, 0)
        if exponent:
            what = f"divides by {self.size}" if exponent < 0 else f"counts all {self.size} positions"
            raise self.refuse(f"a term {what}, whose number is not known while positions still come")
        conditions, factors = [], []
        for factor in term.factors:
            ordered = isinstance(factor, TensorFactor) and is_condition(factor.tensor)
            (conditions if ordered and self.positions(factor.indices) else factors).append(factor)
        bounds = closed({**given, **bounds_of(conditions, self.sizes), **self.shared(factors)})
        positions = self.positions(i for f in (*factors, *conditions) for i in f.indices)
        for i in positions:
            self.check_bound(i, now, bounds)
        under = self.within(factors, conditions, now, bounds)
        nodes: dict[Index, list[Factor]] = {i: [] for i in (*positions, now) if i != now and i not in under}
        nodes[now] = []
        joint: list[Factor] = []
        loose: list[TensorFactor] = []
        for factor in factors:
            inner = [under[i] for i in self.positions(factor.indices) if i in under]
            if inner:
                nodes[inner[0]].append(factor)
            else:
                self.place(factor, now, bounds, nodes, joint, loose)
        for condition in [c for c in conditions if any(i in under for i in c.indices)]:
            conditions.remove(condition)
            roots = {under.get(i, i) for i in self.positions(condition.indices)}
            # The order of an inner position and one further out follows from those between.
            if len(roots) == 1:
                nodes[roots.pop()].append(condition)
        outer = {i for i in free if i.size != self.size} | {i for f in joint for i in f.indices}
        best = min(self.shares(nodes, loose), key=lambda s: self.price(s, now, outer, joint))
        made: list[Factor] = [*best[now], *joint]
        for node in nodes:
            if node != now:
                made += self.read(best[node], node, self.others(best, node, outer))
        made += [self.mask(c, now) for c in conditions]
        here = {now: Index(now.id, self.row)}
        return Monomial(term.coefficient, term.powers, tuple(f.renamed(here) for f in made))

    def within(
        self, factors: Sequence[Factor], conditions: Sequence[Factor], now: Index, bounds: Bounds
    ) -> dict[Index, Index]:
        """Return the positions that are read from an earlier one only, each with that one: a part of its value."""
        needed = list(conditions)
        for condition in conditions:
            # An order that follows from others joins nothing.
            rest = [c for c in needed if c is not condition]
            follow = closed({**bounds_of(rest, self.sizes), **self.shared(factors)})
            stated = bounds_of([condition], self.sizes)
            if stated and all(pair in follow and follow[pair] <= n for pair, n in stated.items()):
                needed = rest
        partners: dict[Index, set[Index]] = {}
        for factor in (*factors, *needed):
            places = self.positions(factor.indices)
            for i in places:
                partners.setdefault(i, set()).update(p for p in places if p != i)
        parent: dict[Index, Index] = {}
        for index, others in partners.items():
            if index != now and len(others) == 1 and now not in others:
                (last,) = others
                if bounds.get((index, last), 1) <= 0:
                    parent[index] = last
        root: dict[Index, Index] = {}
        for index, last in parent.items():
            while last in parent:
                last = parent[last]
            root[index] = last
        for factor in factors:
            places = self.positions(factor.indices)
            if len(places) > 1 and now not in places and len({root.get(i, i) for i in places}) > 1:
                name = getattr(factor, "function", getattr(factor, "tensor", ""))
                raise self.refuse(f"'{name}' joins earlier positions that are read apart as well")
        return root

    def shared(self, factors: Sequence[Factor]) -> Bounds:
        """Return the bounds of the places at which a softmax is read: the share of all others is 0."""
        found: Bounds = {}
        for factor in factors:
            if isinstance(factor, FunctionFactor) and factor.at:
                names = dict(zip(factor.over, factor.at, strict=True))
                found |= {(names.get(i, i), names.get(j, j)): n for (i, j), n in chosen(factor, self.sizes).items()}
        return found

    def positions(self, indices: Iterable[Index]) -> list[Index]:
        return [i for i in dict.fromkeys(indices) if i.size == self.size]

    def check_bound(self, index: Index, now: Index, bounds: Bounds) -> None:
        """Check that a position is not behind the new one, and count how far back it may be."""
        if index == now:
            return
        if bounds.get((index, now), 1) > 0:
            raise self.refuse(
                "a term sums positions that no condition bounds by the output's: write one such as '[e <= a]'"
                if (index, now) not in bounds and (now, index) not in bounds
                else "a term reads positions behind the output's"
            )
        back = bounds.get((now, index))
        self.reach = None if self.reach is None or back is None else max(self.reach, back)

    def place(
        self,
        factor: Factor,
        now: Index,
        bounds: Bounds,
        nodes: dict[Index, list[Factor]],
        joint: list[Factor],
        loose: list[TensorFactor],
    ) -> None:
        """Put a factor to the position that it reads, or to those that join several."""
        places = self.positions(factor.indices)
        if isinstance(factor, FunctionFactor):
            inside = self.positions(i for t in factor.terms for i in t.all_indices())
            if len(places) == 1 and places[0] != now and not (set(factor.at) & set(places)):
                nodes[places[0]].append(factor)
            elif places in ([], [now]) and not inside:
                nodes[now].append(factor)
            else:
                made = self.function(factor, now, bounds)
                (joint if len(places) > 1 or places != [now] else nodes[now]).append(made)
        elif len(places) > 1:
            kind = "its output is on a diagonal" if factor.tensor == IDENTITY else f"'{factor.tensor}' is read at pairs"
            raise self.refuse(f"{kind} of positions, of which a step has one")
        elif places and factor.tensor not in self.spec.inputs:
            raise self.refuse(f"the parameter '{factor.tensor}' has a slot of positions, which steps do not count")
        elif places:
            nodes[places[0]].append(factor)
        elif factor.tensor in self.spec.inputs or is_condition(factor.tensor) or factor.tensor == IDENTITY:
            nodes[now].append(factor)
        else:
            loose.append(factor)

    def function(self, factor: FunctionFactor, now: Index, bounds: Bounds) -> FunctionFactor:
        """Return a function with its argument from the past."""
        over = self.positions(factor.over)
        own = dict(bounds)
        if over:
            own = closed(own | chosen(factor, self.sizes))
            # Read at an earlier position, its row is another one.
            if now not in factor.free and factor.free:
                raise self.refuse(f"'{factor.function}' joins two earlier positions")
            for i in over:
                self.check_bound(i, now, own)
        free = (*factor.free, *factor.over)
        terms = tuple(self.monomial(t, now, free, own) for t in factor.terms)
        return FunctionFactor(factor.function, factor.over, factor.free, terms, factor.at)

    def shares(
        self, nodes: Mapping[Index, list[Factor]], loose: Sequence[TensorFactor]
    ) -> Iterator[dict[Index, list[Factor]]]:
        """Yield the ways to share parameters out among positions, earlier positions first."""
        choices = [tuple(nodes)] * len(loose)
        if len(nodes) ** len(loose) > ASSIGNMENTS:
            choices = [tuple(nodes)[-1:]] * len(loose)
        for picked in product(*choices):
            shared = {n: list(fs) for n, fs in nodes.items()}
            for factor, n in zip(loose, picked, strict=True):
                shared[n].append(factor)
            yield shared

    @staticmethod
    def others(shared: Mapping[Index, Sequence[Factor]], node: Index, outer: set[Index]) -> set[Index]:
        return outer.union(i for n, fs in shared.items() if n != node for f in fs for i in f.indices)

    def price(
        self, shared: Mapping[Index, Sequence[Factor]], now: Index, outer: set[Index], joint: Sequence[Factor]
    ) -> int:
        """Return the numbers kept of a position and the products with them."""
        total = 0
        channels = {i for f in joint for i in f.indices if i.size != self.size}
        for node in shared:
            if node != now:
                groups = self.components(shared[node], node, self.others(shared, node, outer))
                total += sum(numel(c, self.sizes) for _, c in groups)
                total += numel(channels.union(*(c for _, c in groups)), self.sizes) if groups else 0
        return total

    def components(
        self, factors: Sequence[Factor], node: Index, others: set[Index]
    ) -> list[tuple[list[Factor], tuple[Index, ...]]]:
        """Return the factors at a position in groups that no summed channel joins, with the channels they are read by.

        A group whose channels are among another one's is a part of it.
        """
        groups: list[tuple[list[Factor], set[Index]]] = []
        for factor in factors:
            private = {i for i in factor.indices if i != node and i not in others}
            joined = [g for g in groups if any(private & set(f.indices) for f in g[0])]
            merged = ([f for g in joined for f in g[0]] + [factor], set().union(*(g[1] for g in joined)))
            groups = [g for g in groups if g not in joined]
            groups.append((merged[0], merged[1] | (set(factor.indices) & others) - {node}))
        found: list[tuple[list[Factor], set[Index]]] = []
        for group in sorted(groups, key=lambda g: -len(g[1])):
            into = next((g for g in found if group[1] < g[1] or not group[1]), None)
            if into is None:
                found.append(group)
            else:
                into[0].extend(group[0])
        return [(fs, tuple(sorted(channels))) for fs, channels in found]

    def read(self, factors: Sequence[Factor], node: Index, others: set[Index]) -> list[TensorFactor]:
        """Return the kept tensor of an earlier position, in the place of its factors."""
        found = []
        for group, channels in self.components(factors, node, others):
            marks = [TensorFactor("#at", (node,)), *(TensorFactor("#out", (i,)) for i in channels)]
            whole = collect_arguments(Monomial(Fraction(1), (), (*group, *marks)), frozenset())
            key = canonical_monomial(whole, ()).factors
            _, labels = canonical_order(whole, ())
            channels = tuple(sorted(channels, key=lambda i: labels[i]))
            if key not in self.known:
                value = Monomial(Fraction(1), (), tuple(group))
                shape = ((self.size,), *((i.size,) for i in channels))
                made = self.spec_of(f"new_{self.stem}", shape, [value], node, (node, *channels))
                self.known[key] = number = len(self.kept) + 1
                name = f"{self.stem}{number}"
                self.kept.append(Kept(name, tuple(i.size for i in channels), made))
                self.shapes[name] = shape
            found.append(TensorFactor(f"{self.stem}{self.known[key]}", (node, *channels)))
        return found

    def mask(self, condition: Factor, now: Index) -> TensorFactor:
        assert isinstance(condition, TensorFactor)
        rows = tuple(i == now for i in condition.indices)
        key = condition.tensor, rows
        if key not in self.masks:
            name = f"{self.mask_stem}{len(self.masks) + 1}"
            self.masks[key] = Mask(name, condition.tensor, rows)
            self.shapes[name] = tuple((self.row if row else self.size,) for row in rows)
        return TensorFactor(self.masks[key].name, condition.indices)


def _tensors(term: Monomial) -> Iterator[str]:
    for factor in term.factors:
        if isinstance(factor, TensorFactor):
            yield factor.tensor
        else:
            for inner in factor.terms:
                yield from _tensors(inner)
