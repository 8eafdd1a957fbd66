"""Causal specifications chunk by chunk: a masked product within a chunk, states between chunks.

Each sum over positions so far is its state before the chunk plus the sum within the chunk. Multiplied out, the output
of a chunk and each new state are sums of products again: specifications with the states as further inputs, whose size
of positions is the length of the chunk. They are planned, lowered and differentiated like any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache
from itertools import count, product

from polyattn.algebra import FunctionFactor, Index, Monomial, Polynomial, Spec, TensorFactor
from polyattn.algebra.monomial import Factor
from polyattn.algebra.polynomial import Signature
from polyattn.errors import BudgetError
from polyattn.language.conditions import AT_MOST, LESS
from polyattn.planning.recurrence import Local, Product, Recurrence, State, recurrence

MAX_TERMS = 64
"""The most terms of a chunk's output or state."""


@dataclass(frozen=True)
class ChunkState:
    """A state in a chunk: after it, what is kept of the state, times it, plus what is added.

    Attributes:
        name: as an input of other equations.
        channels: the atomic sizes of its axes.
        added: the sum within the chunk; it may read other states.
        kept: the decay over the chunk; None for 1.
        kept_axes: the state's axes that the decay has.
    """

    name: str
    channels: tuple[str, ...]
    added: Spec
    kept: Spec | None
    kept_axes: tuple[int, ...]


@dataclass(frozen=True)
class Chunks:
    """The equations of a chunk.

    Attributes:
        size: the atomic size whose positions are cut into chunks.
        output: the specification of a chunk's output; the states are inputs behind those of the whole.
        states: inner ones first.
    """

    size: str
    output: Spec
    states: tuple[ChunkState, ...]

    @property
    def parts(self) -> tuple[Spec, ...]:
        """Return the specifications of the output, and of each state's factor and summand."""
        return (self.output, *(part for s in self.states for part in (s.added, s.kept) if part is not None))

    @property
    def shapes(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Return the atomic sizes of each state's axes, by name."""
        return tuple((s.name, s.channels) for s in self.states)


@lru_cache(maxsize=128)
def chunks(spec: Spec, size: str, sizes: tuple[tuple[str, int], ...]) -> Chunks:
    """Return the equations of a chunk of a causal specification.

    Args:
        size: the ordered atomic size.
        sizes: numbers of the other atomic sizes, by which the channels of the states are chosen.

    Raises:
        RecurrenceError: a specification without a recurrence.
        BudgetError: a chunk's equation has more than 64 terms.
    """
    return _Writer(spec, recurrence(spec, size, dict(sizes))).run()


@dataclass
class _Writer:
    spec: Spec
    made: Recurrence
    fresh: Iterator[int] = field(default_factory=lambda: count(10**6))

    def run(self) -> Chunks:
        taken = {*self.spec.inputs, *self.spec.parameters, self.spec.output}
        stem = "state" if not any(t.startswith("state") for t in taken) else "state_"
        self.names = [f"{stem}{k + 1}" for k in range(len(self.made.states))]
        channels = [tuple(i.size for i in s.channels) for s in self.made.states]
        signature = self.spec.signature
        shapes = {**signature.shapes, **{n: tuple((a,) for a in c) for n, c in zip(self.names, channels, strict=True)}}
        signature = replace(signature, inputs=(*signature.inputs, *self.names), shapes=shapes)
        output = self.polynomial(
            signature, self.spec.output, signature.output_shape, self.spec.expansion().output, self.made.terms
        )
        states = [
            self.state(signature, name, state, sizes)
            for name, state, sizes in zip(self.names, self.made.states, channels, strict=True)
        ]
        return Chunks(self.made.size, Spec.of(output), tuple(states))

    def state(self, signature: Signature, name: str, state: State, channels: tuple[str, ...]) -> ChunkState:
        shape = tuple((i.size,) for i in state.channels)
        rest = self.between(state, state.added.at, None, False)
        added = self.polynomial(signature, f"new_{name}", shape, state.channels, [state.added], (), rest)
        decays = self.between(state, None, None, False)
        if not decays:
            return ChunkState(name, channels, self.alone(added), None, ())
        axes = tuple(k for k, i in enumerate(state.channels) if any(i in f.free for f in decays))
        free = tuple(state.channels[k] for k in axes)
        product = Monomial(Fraction(1), (), tuple(decays))
        kept = self.polynomial(signature, f"kept_{name}", tuple((i.size,) for i in free), free, [], (product,))
        return ChunkState(name, channels, self.alone(added), self.alone(kept), axes)

    def alone(self, made: Polynomial) -> Spec:
        """Return the specification of a sum over the inputs that it reads, and one that says how long the chunk is."""
        signature = made.signature
        first = next(t for t in self.spec.inputs if any(self.made.size in slot for slot in signature.shapes[t]))
        inputs = tuple(t for t in signature.inputs if t in made.tensors or t == first)
        return Spec.of(Polynomial(replace(signature, inputs=inputs), made.terms))

    def polynomial(
        self,
        signature: Signature,
        name: str,
        shape: tuple[tuple[str, ...], ...],
        free: Sequence[Index],
        products: Sequence[Product],
        more: Sequence[Monomial] = (),
        decays: Sequence[FunctionFactor] = (),
    ) -> Polynomial:
        made = ((p.at, t) for p in products for t in self.terms(p))
        terms = [*more, *(self.counted(_times(t, decays), at, free) for at, t in made)]
        if len(terms) > MAX_TERMS:
            raise BudgetError(f"a chunk's {name} has {len(terms)} terms, more than {MAX_TERMS}")
        # The left's indices come first, the others above them.
        names = {i: Index(k, i.size) for k, i in enumerate(free)}
        apart = []
        for term in terms:
            own = [i for i in dict.fromkeys(term.all_indices()) if i not in names]
            moved = {i: Index(len(names) + k, i.size) for k, i in enumerate(own)}
            apart.append(term.renamed(names | moved))
        shapes = {t: s for t, s in signature.shapes.items() if t != signature.output} | {name: shape}
        return Polynomial.of(replace(signature, output=name, output_shape=shape, shapes=shapes), apart)

    def counted(self, term: Monomial, at: Index, free: Sequence[Index]) -> Monomial:
        """Return a term, times the positions of the chunk where its own position is in no factor and is summed."""
        lost = at not in free and at not in term.indices()
        return term.scaled(Fraction(1), [(self.made.size, 1)]) if lost else term

    def terms(self, made: Product) -> list[Monomial]:
        """Return a product at a position of the chunk, each state as its value before plus the chunk's part."""
        factors = [*made.tensors, *map(self.local, made.functions)]
        choices: list[list[Monomial]] = []
        for use in made.uses:
            state = self.made.states[use.state]
            names = dict(zip(state.channels, use.indices, strict=True))
            start = self.between(state, None, made.at, use.strict, names)
            before = Monomial(Fraction(1), (), (TensorFactor(self.names[use.state], use.indices), *start))
            inside = []
            for term in self.terms(state.added):
                own = {i: Index(next(self.fresh), i.size) for i in dict.fromkeys(term.all_indices()) if i not in names}
                own.setdefault(state.added.at, Index(next(self.fresh), state.added.at.size))
                moved = term.renamed(names | own)
                at = own[state.added.at]
                bound = TensorFactor(LESS if use.strict else AT_MOST, (at, made.at))
                inside.append(_times(moved, [*self.between(state, at, made.at, use.strict, names), bound]))
            choices.append([before, *inside])
        found = []
        for chosen in product(*choices):
            total = Monomial(made.coefficient, made.powers, tuple(factors))
            for part in chosen:
                scaled = total.scaled(part.coefficient, part.powers)
                total = Monomial(scaled.coefficient, scaled.powers, (*total.factors, *part.factors))
            found.append(total)
        return found

    def between(
        self,
        state: State,
        first: Index | None,
        last: Index | None,
        strict: bool,
        names: Mapping[Index, Index] | None = None,
    ) -> list[FunctionFactor]:
        """Return the factor of a state in the steps behind a position of the chunk, up to another.

        Args:
            first: the position; None for the chunk's beginning.
            last: the last position whose step is taken, without it if `strict`; None for the chunk's end.
            names: those of the state's channels.
        """
        factors = []
        for decay in state.decays:
            terms = []
            for ends, sign in [(last, 1), (first, -1)] if first is not None and last is not None else [(None, 1)]:
                for term in (t for p in decay.terms for t in self.terms(p)):
                    old = dict.fromkeys(term.all_indices())
                    own = {i: Index(next(self.fresh), i.size) for i in old if i not in decay.free}
                    at = own[state.added.at] = Index(next(self.fresh), state.added.at.size)
                    moved = term.renamed({**(names or {}), **own})
                    bounds: list[TensorFactor] = []
                    if ends is not None and first is not None and last is not None:
                        bounds.append(TensorFactor(LESS if strict and sign > 0 else AT_MOST, (at, ends)))
                        # Behind the last position the difference would have the other sign, and might overflow.
                        bounds.append(TensorFactor(LESS if strict else AT_MOST, (first, last)))
                    elif last is not None:
                        bounds.append(TensorFactor(LESS if strict else AT_MOST, (at, last)))
                    elif first is not None:
                        bounds.append(TensorFactor(LESS, (first, at)))
                    made = _times(moved.scaled(Fraction(sign)), bounds)
                    lost = at not in made.indices()
                    terms.append(made.scaled(Fraction(1), [(at.size, 1)]) if lost else made)
            channels = [(names or {}).get(i, i) for i in decay.free if i != state.added.at]
            free = [i for i in (*channels, first, last) if i is not None]
            present = {i for t in terms for i in t.indices()}
            factors.append(FunctionFactor("exp", (), tuple(i for i in free if i in present), tuple(terms)))
        return factors

    def local(self, function: Local) -> FunctionFactor:
        terms = tuple(t for p in function.terms for t in self.terms(p))
        return FunctionFactor(function.function, function.over, function.free, terms, function.at)


def _times(term: Monomial, factors: Sequence[Factor]) -> Monomial:
    return Monomial(term.coefficient, term.powers, (*term.factors, *factors))


def chunk_lengths(most: int) -> Mapping[int, None]:
    """Return the lengths of chunks that are tried, at most half of a sequence."""
    return dict.fromkeys(n for n in (16, 32, 64, 128, 256) if 2 * n <= most)
