"""Causal sums as recurrences: the summand of each step, and the states that it reads.

A monomial whose positions all come before the output's is a tree: each position is bounded by another one. The sum
over a position and all before it, of the factors there, is a state, for each down-set of the order that the monomial
passes through; its axes are the channels that cross from the positions inside to those outside. States that are equal
up to renaming are one. A decay between two positions (`decays`) is one of every state between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import product
from math import prod

from polyattn.algebra import FunctionFactor, Index, Monomial, Spec, TensorFactor
from polyattn.algebra.canonical import canonical_monomial, canonical_order, collect_arguments
from polyattn.algebra.expand import Expansion, expand
from polyattn.algebra.monomial import Factor, Powers
from polyattn.errors import BudgetError, RecurrenceError
from polyattn.language.conditions import AT_MOST, LESS, is_condition
from polyattn.language.syntax import IDENTITY
from polyattn.planning.decays import Decay, decay_of
from polyattn.planning.steps import Sizes, numel

ASSIGNMENTS = 4096
"""The ways to share parameters out among positions of which the one with the smallest states is taken."""


@dataclass(frozen=True)
class Use:
    """A state read at some channels, before (`strict`) or after this step's position is added to it."""

    state: int
    indices: tuple[Index, ...]
    strict: bool


@dataclass(frozen=True)
class Local:
    """A function of sums at this step's position."""

    function: str
    over: tuple[Index, ...]
    free: tuple[Index, ...]
    terms: tuple[Product, ...]
    at: tuple[Index, ...]
    reduces: bool


@dataclass(frozen=True)
class Product:
    """A product at this step's position `at`: tensors, functions, and states."""

    coefficient: Fraction
    powers: Powers
    tensors: tuple[TensorFactor, ...]
    functions: tuple[Local, ...]
    uses: tuple[Use, ...]
    at: Index


@dataclass(frozen=True)
class State:
    """A sum over the positions so far; each step multiplies it by its decays, and then adds a product to it."""

    channels: tuple[Index, ...]
    added: Product
    decays: tuple[Local, ...] = ()


@dataclass(frozen=True)
class Recurrence:
    """The states, inner ones first, and the output of a step as a sum of products over the indices `output`."""

    size: str
    states: tuple[State, ...]
    output: tuple[Index, ...]
    terms: tuple[Product, ...]


def recurrence(spec: Spec, size: str, sizes: Sizes) -> Recurrence:
    """Return the recurrence of a specification along an atomic size.

    Args:
        sizes: numbers of all other atomic sizes, by which the channels that cross are chosen.

    Raises:
        RecurrenceError: the specification has none; the message says which part would have to keep the past.
    """
    found: list[Recurrence] = []
    errors: list[RecurrenceError | BudgetError] = []
    # A sum at one position as one factor mostly has smaller states than its terms one by one.
    for kept in (None, size):
        try:
            found.append(_recurrence(spec, size, sizes, expand(spec, kept)))
        except (RecurrenceError, BudgetError) as error:
            errors.append(error)
    if not found:
        raise errors[0]
    return min(found, key=lambda r: state_numbers(r.states, sizes))


def _recurrence(spec: Spec, size: str, sizes: Sizes, expansion: Expansion) -> Recurrence:
    """Return the recurrence of an expansion."""
    now = [i for i in expansion.output if i.size == size]
    if len(now) != 1:
        raise RecurrenceError(
            f"a step gives one position of the output, but {spec.output} has {len(now) or 'no'} slots of size {size}"
        )
    maker = _Maker(spec, size, sizes, now[0])
    try:
        terms = maker.sum(expansion.terms, now[0], expansion.output)
    except RecurrenceError:
        # What looks ahead may cancel, once the sum is split by the orders of its positions.
        split = spec.polynomial().in_order(scale={})
        maker = _Maker(spec, size, sizes, now[0])
        try:
            terms = maker.sum(split, now[0], expansion.output)
        except RecurrenceError:
            maker = _Maker(spec, size, sizes, now[0])
            terms = maker.sum(expansion.terms, now[0], expansion.output)
    output = tuple(i for i in expansion.output if i != now[0])
    return Recurrence(size, tuple(maker.states), output, tuple(terms))


@dataclass
class _Maker:
    spec: Spec
    size: str
    sizes: Sizes
    letter: Index
    states: list[State] = field(default_factory=list)
    known: dict[object, int] = field(default_factory=dict)

    def refuse(self, reason: str) -> RecurrenceError:
        return RecurrenceError(f"{self.spec.output} has no recurrence along {self.size}: {reason}")

    def sum(self, terms: Sequence[Monomial], now: Index, free: Sequence[Index]) -> list[Product]:
        return [made for term in terms for made in self.monomial(term, now, free)]

    def monomial(self, term: Monomial, now: Index, free: Sequence[Index]) -> Iterator[Product]:
        exponent = dict(term.powers).get(self.size, 0)
        if exponent:
            what = f"divides by {self.size}" if exponent < 0 else f"counts all {self.size} positions"
            raise self.refuse(f"a term {what}, whose number is not known while positions still come")
        factors: list[Factor] = []
        before: dict[tuple[Index, Index], bool] = {}
        for factor in term.factors:
            if isinstance(factor, TensorFactor) and is_condition(factor.tensor):
                if all(i.size != self.size for i in factor.indices):
                    factors.append(factor)
                    continue
                if factor.tensor not in (LESS, AT_MOST) or len(factor.indices) != 2:
                    raise self.refuse(
                        "a condition with numbers or sizes, or on parts of a composite, needs the positions that it "
                        "chooses to be kept"
                    )
                first, second = factor.indices
                before[first, second] = before.get((first, second), False) or factor.tensor == LESS
            else:
                self.check(factor)
                factors.append(factor)
        for found, order in self.trees(factors, before, now):
            yield self.made(term, found, order, now, free)

    def check(self, factor: Factor) -> None:
        """Refuse a factor that reads several positions, or a parameter at one."""
        ordered = {i for i in factor.indices if i.size == self.size}
        if isinstance(factor, FunctionFactor):
            if any(i.size == self.size for i in factor.over):
                raise self.refuse(f"'{factor.function}' over positions has to keep them all")
            if len(ordered) > 2 or (len(ordered) == 2 and factor.function != "exp"):
                raise self.refuse(f"'{factor.function}' joins two positions, which a state cannot hold apart")
            return
        if len(ordered) > 1 and factor.tensor == IDENTITY:
            raise self.refuse("its output is on a diagonal of positions")
        if len(ordered) > 1:
            raise self.refuse(f"'{factor.tensor}' is read at a pair of positions, which a state cannot hold apart")
        if ordered and factor.tensor not in self.spec.inputs:
            raise self.refuse(f"the parameter '{factor.tensor}' has a slot of positions, which steps do not count")

    def trees(
        self, factors: Sequence[Factor], before: Mapping[tuple[Index, Index], bool], now: Index
    ) -> Iterator[tuple[list[Factor], dict[Index, tuple[Index, bool]]]]:
        """Yield the orders that a product is split into, with the position that bounds each one, and if strictly."""
        positions = dict.fromkeys(i for f in factors for i in f.indices if i.size == self.size)
        positions |= dict.fromkeys(i for pair in before for i in pair)
        positions[now] = None
        closed = _closure(before, positions)
        for (i, j), strict in closed.items():
            if (j, i) in closed and i != j:
                if strict or closed[j, i]:
                    return  # i < j < i: nothing is left
                names = {j: i} if j != now else {i: j}
                moved = Monomial(Fraction(1), (), tuple(f.renamed(names) for f in factors))
                yield from self.trees(_joined(moved), _renamed(before, names), now)
                return
            if i == j and strict:
                return
        order: dict[Index, tuple[Index, bool]] = {}
        for i in positions:
            if i == now:
                continue
            if (now, i) in closed:
                raise self.refuse("a term reads positions behind the output's")
            if (i, now) not in closed:
                raise self.refuse(
                    "a term sums positions that no condition bounds by the output's: write one such as '[e <= a]'"
                )
            above = [j for j in positions if (i, j) in closed and j != i and not _implied(closed, positions, i, j)]
            if len(above) > 1:
                # Two bounds of one position: whichever comes first is the one that counts.
                f, g = above[0], above[1]
                for more in ({(f, g): True}, {(f, g): False, (g, f): False}, {(g, f): True}):
                    joined = dict(before)
                    for pair, strict in more.items():
                        joined[pair] = joined.get(pair, False) or strict
                    yield from self.trees(factors, joined, now)
                return
            order[i] = above[0], closed[i, above[0]]
        for _, decay, path in self.decays(factors, order):
            loose = [] if decay.is_plain else [i for i in path if not order[i][1]]
            if loose:
                # Where both positions are equal the decay has another form.
                pair = loose[0], order[loose[0]][0]
                yield from self.trees(factors, {**before, pair: True}, now)
                yield from self.trees(factors, {**before, pair: False, (pair[1], pair[0]): False}, now)
                return
        yield list(factors), order

    def decays(
        self, factors: Sequence[Factor], order: Mapping[Index, tuple[Index, bool]]
    ) -> Iterator[tuple[FunctionFactor, Decay, list[Index]]]:
        """Yield each decay with the positions that it passes through, but the last."""
        for factor in factors:
            pair = [i for i in factor.indices if i.size == self.size]
            if len(pair) < 2 or not isinstance(factor, FunctionFactor):
                continue
            for first, last in (pair, pair[::-1]):
                path = [first]
                while path[-1] in order and path[-1] != last:
                    path.append(order[path[-1]][0])
                if path[-1] == last and (decay := decay_of(factor, first, last)):
                    yield factor, decay, path[:-1]
                    break
            else:
                raise self.refuse(
                    f"'{factor.function}' joins two positions, which a state cannot hold apart: a decay is "
                    f"'exp(c[a] - c[e])' of running sums c, with '[e <= a]'"
                )

    def made(
        self,
        term: Monomial,
        factors: Sequence[Factor],
        order: Mapping[Index, tuple[Index, bool]],
        now: Index,
        free: Sequence[Index],
    ) -> Product:
        """Return the product at the output's position, with its states."""
        nodes: dict[Index, list[Factor]] = {i: [] for i in (now, *order)}
        loose: list[Factor] = []
        steps: dict[Index, list[FunctionFactor]] = {i: [] for i in order}
        gone: set[FunctionFactor] = set()
        for factor, decay, path in self.decays(factors, order):
            gone.add(factor)
            nodes[path[0]] += decay.at_first(path[0])
            for i in path:
                steps[i] += [decay.of_step(i)] if decay.step else []
                if order[i][1]:
                    # The state before this position has not taken its step yet.
                    after = order[i][0]
                    ends = i == path[-1]
                    nodes[after] += decay.at_last(after) if ends else [decay.of_step(after)] if decay.step else []
        for factor in factors:
            if factor in gone:
                continue
            places = [i for i in factor.indices if i.size == self.size]
            if places:
                nodes[places[0]].append(factor)
            elif isinstance(factor, TensorFactor) and factor.tensor not in self.spec.inputs:
                loose.append(factor)
            else:
                nodes[now].append(factor)
        inside = {i: _below(i, order) for i in nodes}
        outer = {i for i in free if i.size != self.size}

        def crossing(shared: Mapping[Index, Sequence[Factor]], node: Index) -> tuple[Index, ...]:
            mine = {i for n in inside[node] for f in (*shared[n], *steps[n]) for i in f.indices if i.size != self.size}
            others = outer.union(i for n in nodes if n not in inside[node] for f in shared[n] for i in f.indices)
            # What a state is multiplied by in each step is on both sides of it.
            others |= {i for n in order if n not in inside[node] or n == node for f in steps[n] for i in f.indices}
            return tuple(sorted(mine & others))

        def shares() -> Iterator[dict[Index, list[Factor]]]:
            choices = [tuple(nodes)] * len(loose)
            if len(nodes) ** len(loose) > ASSIGNMENTS:
                choices = [(now,)] * len(loose)
            for chosen in product(*choices):
                shared = {n: list(fs) for n, fs in nodes.items()}
                for factor, n in zip(loose, chosen, strict=True):
                    shared[n].append(factor)
                yield shared

        best = min(shares(), key=lambda s: sum(numel(crossing(s, n), self.sizes) for n in order))

        def at(node: Index) -> tuple[Use, ...]:
            return tuple(
                self.state(n, best, order, inside, crossing(best, n), order[n][1], at, steps)
                for n in order
                if order[n][0] == node
            )

        return self.product(term.coefficient, term.powers, best[now], now, at(now))

    def product(
        self, coefficient: Fraction, powers: Powers, factors: Sequence[Factor], at: Index, uses: tuple[Use, ...]
    ) -> Product:
        tensors = tuple(f for f in factors if isinstance(f, TensorFactor))
        functions = tuple(self.local(f, at) for f in factors if isinstance(f, FunctionFactor))
        return Product(coefficient, powers, tensors, functions, uses, at)

    def local(self, factor: FunctionFactor, at: Index) -> Local:
        """Return a function of sums at a position."""
        terms = self.sum(factor.terms, at, (*factor.free, *factor.over))
        return Local(factor.function, factor.over, factor.free, tuple(terms), factor.at, factor.reduces)

    def state(
        self,
        node: Index,
        shared: Mapping[Index, Sequence[Factor]],
        order: Mapping[Index, tuple[Index, bool]],
        inside: Mapping[Index, frozenset[Index]],
        channels: tuple[Index, ...],
        strict: bool,
        at: Callable[[Index], tuple[Use, ...]],
        steps: Mapping[Index, Sequence[FunctionFactor]],
    ) -> Use:
        """Return the use of the state of a position and those before it, a known one if there is an equal one."""
        factors: list[Factor] = [f for n in inside[node] for f in shared[n]]
        for n in inside[node] - {node}:
            factors.append(TensorFactor(LESS if order[n][1] else AT_MOST, (n, order[n][0])))
        start = 1 + max((i.id for f in (*factors, *steps[node]) for i in f.all_indices()), default=0)
        for k, n in enumerate(n for n in order if n in inside[node] and steps[n]):
            # Apart from a factor of the position itself.
            place = Index(start + k, self.size)
            factors += [f.renamed({n: place}) for f in steps[n]]
            factors.append(TensorFactor("#decay", (n, place)))
        marks = [TensorFactor("#at", (node,)), *(TensorFactor("#out", (i,)) for i in channels)]
        whole = collect_arguments(Monomial(Fraction(1), (), (*factors, *marks)), frozenset())
        key = canonical_monomial(whole, ()).factors
        _, labels = canonical_order(whole, ())
        channels = tuple(sorted(channels, key=lambda i: labels[i]))
        if key not in self.known:
            added = self.product(Fraction(1), (), shared[node], node, at(node))
            self.known[key] = len(self.states)
            self.states.append(State(channels, added, tuple(self.local(f, node) for f in steps[node])))
        return Use(self.known[key], channels, strict)


def _below(node: Index, order: Mapping[Index, tuple[Index, bool]]) -> frozenset[Index]:
    """Return a position and all that it bounds."""
    found = {node}
    while more := {i for i, (above, _) in order.items() if above in found} - found:
        found |= more
    return frozenset(found)


def _closure(
    before: Mapping[tuple[Index, Index], bool], positions: Mapping[Index, None]
) -> dict[tuple[Index, Index], bool]:
    """Return all relations that follow, strict where a step on the way is."""
    closed = dict(before)
    for k, i, j in product(positions, positions, positions):
        if (i, k) in closed and (k, j) in closed:
            closed[i, j] = closed.get((i, j), False) or closed[i, k] or closed[k, j]
    return {(i, j): strict for (i, j), strict in closed.items() if i != j or strict}


def _implied(closed: Mapping[tuple[Index, Index], bool], positions: Mapping[Index, None], i: Index, j: Index) -> bool:
    """Return whether a relation follows from others by way of a position between."""
    between = (k for k in positions if k not in (i, j) and (i, k) in closed and (k, j) in closed)
    return any(not closed[i, j] or closed[i, k] or closed[k, j] for k in between)


def _joined(term: Monomial) -> list[Factor]:
    """Return the factors of a product whose positions have become equal, without exponentials of 0."""
    collected = collect_arguments(term, frozenset(term.indices())).factors
    return [f for f in collected if not (isinstance(f, FunctionFactor) and f.function == "exp" and not f.terms)]


def _renamed(before: Mapping[tuple[Index, Index], bool], names: Mapping[Index, Index]) -> dict:
    found: dict[tuple[Index, Index], bool] = {}
    for (i, j), strict in before.items():
        pair = names.get(i, i), names.get(j, j)
        if pair[0] != pair[1] or strict:
            found[pair] = found.get(pair, False) or strict
    return found


def state_numbers(states: Sequence[State], sizes: Sizes) -> int:
    """Return how many numbers the states of one sample are."""
    return sum(prod(numel([i], sizes) for i in s.channels) for s in states)


def tensors_of(terms: Sequence[Product]) -> set[str]:
    """Return the tensors that products read, those inside functions included."""
    found = {f.tensor for t in terms for f in t.tensors}
    return found.union(*(tensors_of(f.terms) for t in terms for f in t.functions))
