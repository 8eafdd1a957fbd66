"""The search: parameters of one network as products of those of another, so that the first becomes the second.

Fixed tensors (the inputs) are put one to one on each other, which says where most indices go; each index between
parameters alone is one index of the other network, none (its size is 1), or a pair. Every parameter of the target then
has to lie between the slots of one parameter. A candidate that passes is the same product by construction; the proof is
made elsewhere, from the texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import permutations, product

from polyattn.algebra import Index, Monomial, TensorFactor
from polyattn.algebra.canonical import canonical_monomial
from polyattn.algebra.monomial import Powers, multiply_powers, size_product
from polyattn.language.sizes import ROOT
from polyattn.language.syntax import IDENTITY
from polyattn.relating.network import Applied, Network, Node, Product

Image = tuple[int, ...]
"""The indices of the target that an index becomes: one; none, where its size is 1; or two."""

Places = Mapping[int, Image]
Sizes = Mapping[str, tuple[str, ...]]
Scale = tuple[Fraction, Powers]

AT_ZERO = {"exp": Fraction(1), "sigmoid": Fraction(1, 2)}
"""The value at 0 of functions of one number that are not 0 there."""

MOST_ORDERS = 24
"""The most ways to share the target's parameters out that are tried at each place of the indices."""

MOST = 1000
"""A cost above all others."""

ROUNDS = ((2, False), (5, False), (MOST, False), (MOST, True))
"""The rounds of a search: the cost up to which matches are looked for, and whether a size may become a product."""

OTHER, PAIR = 2, 6
"""The costs of a size that becomes one of another name, and a product; one that becomes 1 costs 1."""


@dataclass(frozen=True)
class Pattern:
    """A parameter as a product: the sizes of each slot's images, and the product with these indices free."""

    slots: tuple[tuple[str, ...], ...]
    body: Monomial

    @property
    def free(self) -> tuple[Index, ...]:
        return tuple(Index(k, s) for k, s in enumerate(s for slot in self.slots for s in slot))


@dataclass(frozen=True)
class Match:
    """Conditions under which one network becomes another.

    Attributes:
        sizes: for each atomic size, the sizes whose product it becomes.
        patterns, scales: for each parameter that is not zero, its product and the number in front of it.
        zeros: the parameters set to zero.
        cost: how far its sizes are from those of the first network.
    """

    sizes: Sizes
    patterns: Mapping[str, Pattern] = field(default_factory=dict)
    scales: Mapping[str, Scale] = field(default_factory=dict)
    zeros: frozenset[str] = frozenset()
    cost: int = 0


@dataclass(frozen=True)
class Scope:
    """The indices of the surroundings of a sum, on either side: not summed by its terms."""

    mine: frozenset[int]
    theirs: frozenset[int]


class SpentSearchError(Exception):
    """The search has looked at as many candidates as it may."""


class Matcher:
    """The search for the ways in which network `a` becomes network `b`.

    Args:
        shared: the sizes that are the same on both sides.
        names: for sizes of `a` under a new name, the old one: a size becomes that of its own name first.
        effort: the largest number of steps.
    """

    def __init__(self, a: Network, b: Network, shared: Sequence[str], names: Mapping[str, str], effort: int):
        self.a, self.b, self.names, self.effort = a, b, names, effort
        self.shared = frozenset(shared)
        self.start = Match({s: (s,) for s in shared})
        self.searched = self.steps = 0
        self.limit, self.products, self.cut = 0, False, False

    def run(self) -> Iterator[Match]:
        """Yield matches, those whose sizes change least first.

        Raises:
            SpentSearchError: after `effort` steps.
        """
        if len(self.a.output) != len(self.b.output):
            return
        found = self._unified({}, self.start, self.a.output, self.b.output)
        if found is None:
            return
        places, state = found
        scope = Scope(frozenset(self.a.output), frozenset(self.b.output))
        below = -1
        for self.limit, self.products in ROUNDS:
            self.cut = False
            for match, _ in self._sums(self.a.terms, self.b.terms, places, state, scope):
                has_product = any(len(image) > 1 for image in match.sizes.values())
                if has_product if self.products else match.cost > below:
                    yield match
            if not self.cut:
                return
            below = self.limit

    def _step(self) -> None:
        self.steps += 1
        if self.steps > self.effort:
            raise SpentSearchError

    def _unified(
        self, places: Places, state: Match, mine: Sequence[int], theirs: Sequence[int]
    ) -> tuple[dict[int, Image], Match] | None:
        """Return the places and sizes if each index of `mine` becomes that of `theirs`; None if it cannot."""
        known, sizes = dict(places), dict(state.sizes)
        for i, j in zip(mine, theirs, strict=True):
            if known.setdefault(i, (j,)) != (j,):
                return None
            have, new = self.a.sizes[i], (self.b.sizes[j],)
            if sizes.setdefault(have, new) != new or (have.isdigit() and new != (have,)):
                return None
        return known, replace(state, sizes=sizes)

    def _sums(
        self, mine: Sequence[Product], theirs: Sequence[Product], places: Places, state: Match, scope: Scope
    ) -> Iterator[tuple[Match, dict[int, Image]]]:
        """Yield the ways in which one sum becomes another, with the places of the indices of its surroundings."""
        if len(mine) < len(theirs):
            return

        def extend(number: int, used: frozenset[int], state: Match, places: Places) -> Iterator:
            if number == len(theirs):
                yield from self._without([t for k, t in enumerate(mine) if k not in used], state, places)
                return
            for k, term in enumerate(mine):
                if k in used or not _alike(term, theirs[number]):
                    continue
                if any(p.name in state.zeros for p in term.parameters):
                    continue
                for new, found in self._products(term, theirs[number], places, state, scope):
                    # Indices of this term's own are forgotten; those of the surroundings stay.
                    kept = {i: image for i, image in found.items() if i in scope.mine}
                    yield from extend(number + 1, used | {k}, new, kept)

        yield from extend(0, frozenset(), state, places)

    def _without(self, rest: Sequence[Product], state: Match, places: Places) -> Iterator[tuple[Match, dict]]:
        """Yield the states in which each of the terms has a parameter that is zero."""
        if not rest:
            yield state, dict(places)
            return
        term = rest[0]
        if any(p.name in state.zeros for p in term.parameters):
            yield from self._without(rest[1:], state, places)
            return
        for name in dict.fromkeys(p.name for p in term.parameters if p.name not in state.patterns):
            yield from self._without(rest[1:], replace(state, zeros=state.zeros | {name}), places)

    def _products(
        self, mine: Product, theirs: Product, places: Places, state: Match, scope: Scope
    ) -> Iterator[tuple[Match, dict[int, Image]]]:
        for known, found in self._fixed(mine.fixed, theirs.fixed, places, state):
            for scale, state_, known_ in self._functions(mine.functions, theirs, known, found):
                internal = [i for i in dict.fromkeys(i for p in mine.parameters for i in p.slots) if i not in known_]
                for placed, sized in self._inside(internal, theirs.indices, known_, state_):
                    yield from ((m, placed) for m in self._parameters(mine, theirs, placed, sized, scale, scope))

    def _fixed(
        self, mine: Sequence[Node], theirs: Sequence[Node], places: Places, state: Match
    ) -> Iterator[tuple[dict[int, Image], Match]]:
        if not mine:
            if not theirs:
                yield dict(places), state
            return
        first = mine[0]
        for k, other in enumerate(theirs):
            if other.name != first.name or len(other.slots) != len(first.slots):
                continue
            orders = (other.slots, other.slots[::-1]) if first.name == IDENTITY else (other.slots,)
            for slots in orders:
                self._step()
                found = self._unified(places, state, first.slots, slots)
                if found is not None:
                    yield from self._fixed(mine[1:], (*theirs[:k], *theirs[k + 1 :]), *found)

    def _functions(
        self, mine: Sequence[Applied], theirs: Product, places: Places, state: Match
    ) -> Iterator[tuple[Scale, Match, dict[int, Image]]]:
        """Yield the ways in which functions become those of a product, or the constants that they are at 0."""

        def extend(k: int, left: tuple[Applied, ...], scale: Scale, state: Match, places: Places) -> Iterator:
            if k == len(mine):
                if not left:
                    yield scale, state, dict(places)
                return
            for n, other in enumerate(left):
                for new, found in self._function(mine[k], other, places, state):
                    yield from extend(k + 1, (*left[:n], *left[n + 1 :]), scale, new, found)
            if len(mine) - k > len(left) and mine[k].terms:
                constant = self._constant(mine[k], state)
                if constant is not None:
                    number = scale[0] * constant[0], multiply_powers(scale[1], constant[1])
                    for new, found in self._without(mine[k].terms, state, places):
                        yield from extend(k + 1, left, number, new, found)

        yield from extend(0, theirs.functions, (Fraction(1), ()), state, places)

    def _constant(self, function: Applied, state: Match) -> Scale | None:
        """Return the value of a function of zeros."""
        if function.name in AT_ZERO:
            return AT_ZERO[function.name], ()
        sizes = [self.a.sizes[i] for i in function.over]
        if function.name != "softmax" or any(s not in state.sizes for s in sizes):
            return None
        return size_product([a for s in sizes for a in state.sizes[s]], -1)

    def _function(
        self, mine: Applied, theirs: Applied, places: Places, state: Match
    ) -> Iterator[tuple[Match, dict[int, Image]]]:
        if (mine.name, len(mine.over), len(mine.at)) != (theirs.name, len(theirs.over), len(theirs.at)):
            return
        for order in permutations(range(len(theirs.over))):
            self._step()
            found = self._unified(places, state, mine.at, [theirs.at[k] for k in order] if mine.at else ())
            if found is None:
                continue
            known, state_ = found
            inside = {i: known[i] for i in mine.free if i in known}
            entered = self._unified(inside, state_, mine.over, [theirs.over[k] for k in order])
            if entered is None:
                continue
            scope = Scope(frozenset((*mine.free, *mine.over)), frozenset((*theirs.free, *theirs.over)))
            for new, after in self._sums(mine.terms, theirs.terms, *entered, scope):
                shared = {i: after[i] for i in mine.free if i in after}
                # An index of the surroundings may not become one that only the argument has.
                if all(set(shared[i]) <= set(theirs.free) for i in shared if i not in known):
                    yield new, {**known, **shared}

    def _inside(
        self, internal: Sequence[int], theirs: Sequence[int], places: Places, state: Match
    ) -> Iterator[tuple[dict[int, Image], Match]]:
        """Yield the places of indices between parameters."""
        if not internal:
            yield dict(places), state
            return
        index, size = internal[0], self.a.sizes[internal[0]]
        for image in self._images(size, theirs, state):
            self._step()
            wanted = tuple(self.b.sizes[j] for j in image)
            cost = state.cost + (0 if size in state.sizes else self._cost(size, wanted))
            if cost > self.limit:
                self.cut = True
                continue
            new = replace(state, sizes={**state.sizes, size: wanted}, cost=cost)
            yield from self._inside(internal[1:], theirs, {**places, index: image}, new)

    def _cost(self, size: str, image: tuple[str, ...]) -> int:
        """Return how far a size is from its image: its own name, 1, another, a product; more where an input has it."""
        if image in ((size,), (self.names.get(size),)):
            return 0
        if not image:
            return 1
        return (OTHER if len(image) < 2 else PAIR) + sum(s in self.shared for s in image)

    def _images(self, size: str, theirs: Sequence[int], state: Match) -> Iterator[Image]:
        if size in state.sizes:
            wanted = state.sizes[size]
            for image in product(theirs, repeat=len(wanted)):
                if tuple(self.b.sizes[j] for j in image) == wanted and len(set(image)) == len(image):
                    yield image
            return
        if size.isdigit():
            yield from ((j,) for j in theirs if self.b.sizes[j] == size)
            return

        def cost(image: Image) -> int:
            return self._cost(size, tuple(self.b.sizes[j] for j in image))

        alone: list[Image] = [(), *((j,) for j in theirs)]
        yield from sorted(alone, key=cost)
        # One size at most becomes a product.
        if self.products and all(len(image) < 2 for image in state.sizes.values()):
            yield from sorted(permutations(theirs, 2), key=cost)
        self.cut = self.cut or not self.products

    def _parameters(
        self, mine: Product, theirs: Product, places: Places, state: Match, scale: Scale, scope: Scope
    ) -> Iterator[Match]:
        """Yield the ways to share the target's parameters out among those of a product with places for its indices."""
        self.searched += 1
        self._step()
        # Functions of zeros are gone, with the indices that are theirs alone.
        images = {i: places[i] for i in mine.indices if i in places}
        exposed = scope.theirs | {j for image in images.values() for j in image}
        exposed |= {j for n in theirs.fixed for j in n.slots}
        exposed |= {j for f in theirs.functions for j in (*f.free, *f.at)}
        if not _joined(mine.parameters, images, scope.mine):
            return
        groups = _components(theirs.parameters, exposed)
        reach = [{j for i in p.slots for j in images[i]} for p in mine.parameters]
        options = [[k for k, r in enumerate(reach) if _outer(g, exposed) <= r] for g in groups]
        if not all(options) or (groups and not mine.parameters):
            return
        for n, choice in enumerate(product(*options)):
            if n >= MOST_ORDERS:
                return
            self._step()
            given: list[list[Node]] = [[] for _ in mine.parameters]
            for group, k in zip(groups, choice, strict=True):
                given[k] += group
            patterns = dict(state.patterns)
            for parameter, nodes in zip(mine.parameters, given, strict=True):
                pattern = self._pattern(parameter, nodes, images)
                if patterns.setdefault(parameter.name, pattern) != pattern or parameter.name in state.zeros:
                    break
            else:
                yield from self._scaled(mine, theirs, replace(state, patterns=patterns), scale)

    def _pattern(self, parameter: Node, nodes: Sequence[Node], images: Places) -> Pattern:
        slots = tuple(tuple(self.b.sizes[j] for j in images[i]) for i in parameter.slots)
        free = [Index(k, self.b.sizes[j]) for k, j in enumerate(j for i in parameter.slots for j in images[i])]
        names: dict[int, Index] = {}
        factors: list[TensorFactor] = []
        for index, j in zip(free, [j for i in parameter.slots for j in images[i]], strict=True):
            if j in names:  # two slots become one index
                factors.append(TensorFactor(IDENTITY, (names[j], index)))
            names.setdefault(j, index)
        for node in nodes:
            for j in node.slots:
                names.setdefault(j, Index(len(free) + len(names), self.b.sizes[j]))
            factors.append(TensorFactor(node.name, tuple(names[j] for j in node.slots)))
        return Pattern(slots, canonical_monomial(Monomial(Fraction(1), (), tuple(factors)), free))

    def _scaled(self, mine: Product, theirs: Product, state: Match, scale: Scale) -> Iterator[Match]:
        """Yield the states in which the numbers in front of both products are equal."""
        number, powers = mine.coefficient * scale[0], multiply_powers(_mapped(mine.powers, state.sizes), scale[1])
        number, powers = theirs.coefficient / number, multiply_powers(theirs.powers, _inverse(powers))
        counts = Counter(p.name for p in mine.parameters)
        for name, times in counts.items():
            if name in state.scales:
                number /= state.scales[name][0] ** times
                powers = multiply_powers(powers, [(s, -e * times) for s, e in state.scales[name][1]])
        fresh = [name for name in counts if name not in state.scales]
        ones = {**state.scales, **{name: (Fraction(1), ()) for name in fresh}}
        if number == 1 and not powers:
            yield replace(state, scales=ones)
            return
        for name in reversed(fresh):
            if counts[name] == 1:
                yield replace(state, scales={**ones, name: (number, powers)})


def _alike(mine: Product, theirs: Product) -> bool:
    """Return whether two products have the same fixed tensors, and the first enough functions."""
    if sorted(n.name for n in mine.fixed) != sorted(n.name for n in theirs.fixed):
        return False
    have = Counter(f.name for f in mine.functions)
    return not Counter(f.name for f in theirs.functions) - have


def _joined(parameters: Sequence[Node], images: Places, outside: frozenset[int]) -> bool:
    """Return whether indices that become one are joined by parameters, each of which makes two of its slots one.

    Those of the surroundings are joined there.
    """
    groups: dict[int, set[int]] = {}
    for index, image in images.items():
        for j in image:
            groups.setdefault(j, set()).add(index)
    for group in groups.values():
        reached = group & outside or {next(iter(group))}
        links = [g for p in parameters if len(g := group & set(p.slots)) > 1]
        while more := [g for g in links if g & reached and not g <= reached]:
            reached.update(*more)
        if reached != group:
            return False
    return True


def _components(nodes: Sequence[Node], exposed: frozenset[int]) -> list[list[Node]]:
    """Return the nodes in groups: those joined by indices outside of `exposed` are one."""
    groups: list[list[Node]] = []
    for node in nodes:
        inner = set(node.slots) - exposed
        joined = [g for g in groups if any(inner & set(n.slots) for n in g)]
        groups = [g for g in groups if g not in joined] + [[n for g in joined for n in g] + [node]]
    return groups


def _outer(group: Sequence[Node], exposed: frozenset[int]) -> set[int]:
    """Return the indices that a group shares with anything else."""
    return {j for n in group for j in n.slots if j in exposed}


def _mapped(powers: Powers, sizes: Sizes) -> Powers:
    found: list[tuple[str, int]] = []
    for size, exponent in powers:
        root, bare = (ROOT, size[1:]) if size[0] == ROOT else ("", size)
        found += [(root + part, exponent) for part in sizes.get(bare, (bare,))]
    return multiply_powers(found, ())


def _inverse(powers: Powers) -> list[tuple[str, int]]:
    return [(s, -e) for s, e in powers]
