"""Canonical form: monomials up to renaming of summed indices and reordering of factors.

A monomial is a coloured graph: factors, their slots, indices, and, for a function, its argument's terms. The
canonical labelling of that graph (BLISS, through igraph) numbers its indices and orders its factors, so two
monomials are equal up to renaming exactly if their canonical forms are equal. Sits between expansion, which
makes monomials with arbitrary names, and everything that compares polynomials.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache, lru_cache
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from threading import Lock
from typing import Any

from polyattn.algebra.monomial import (
    Factor,
    FunctionFactor,
    Index,
    Monomial,
    TensorFactor,
    contract_identities,
    monomial_text,
    size_product,
    writable,
)
from polyattn.language.conditions import AT_MOST, LESS, comparison, is_condition
from polyattn.language.syntax import IDENTITY, is_fixed


def collect(terms: Iterable[Monomial], free: Sequence[Index]) -> tuple[Monomial, ...]:
    """Return canonical terms in canonical order, equal ones added up, zeros dropped.

    Args:
        terms: monomials whose indices outside `free` are summed.
        free: the indices on the left; they keep their ids, which must be smaller than all others.
    """
    totals: dict[tuple, Fraction] = {}
    for term in terms:
        if not term.coefficient:
            continue
        canonical = canonical_monomial(term, free)
        # The coefficient is left out of the key: terms that differ only in it are added.
        key = (canonical.powers, canonical.factors)
        totals[key] = totals.get(key, Fraction(0)) + canonical.coefficient
    kept = [writable(Monomial(number, powers, factors)) for (powers, factors), number in totals.items() if number]
    # The text is a total order independent of hashes, so results agree between processes.
    return tuple(sorted(kept, key=monomial_text) if len(kept) > 1 else kept)


def canonical_monomial(term: Monomial, free: Sequence[Index]) -> Monomial:
    """Return the monomial with its summed indices numbered and its factors ordered canonically."""
    reduced = collect_arguments(contract_identities(term, free), frozenset(free))
    # Compact ids make monomials from different expansions hit the cache of canonical factors.
    compact = _compact(reduced, tuple(free))
    factors = _canonical_factors(compact.factors, tuple(free))
    return Monomial(reduced.coefficient, reduced.powers, factors)


def collect_arguments(term: Monomial, scope: frozenset[Index]) -> Monomial:
    """Return the monomial with equal terms in its functions' arguments added up, recursively.

    If a function becomes constant along an index of no other factor, the sum over it becomes its size.
    """
    if all(isinstance(f, TensorFactor) for f in term.factors):
        return term
    factors = tuple(map(_collect_argument, term.factors))
    have = {i for f in factors for i in f.indices}
    lost = [i for i in term.indices() if i not in have and i not in scope]
    number, powers = size_product(i.size for i in lost)
    return Monomial(term.coefficient, term.powers, factors).scaled(number, powers)


def _compact(term: Monomial, free: tuple[Index, ...]) -> Monomial:
    """Number summed indices by first appearance, so that equal texts share one cache entry."""
    start = 1 + max((i.id for i in free), default=-1)
    seen = [i for i in dict.fromkeys(term.all_indices()) if i not in set(free)]
    return term.renamed({old: Index(start + k, old.size) for k, old in enumerate(seen)})


def canonical_order(term: Monomial, free: Sequence[Index]) -> tuple[tuple[int, ...], dict[Index, int]]:
    """Return the canonical order of a monomial's factors and indices; equal monomials correspond by it.

    Args:
        term: a monomial with identities contracted and arguments collected (`collect_arguments`).

    Returns:
        The positions of the factors in canonical order, and a number for each index, those included that its
        functions run over: if two monomials have one canonical form, mapping number to number is an isomorphism.
    """
    graph = _graph(term.factors, tuple(free))
    labels = graph.canonical_labels()
    order = sorted(range(len(term.factors)), key=lambda k: labels[graph.vertices[(k,)]])
    # Paths of length 0 and 1: the monomial itself and its functions, not their arguments' terms.
    scopes = [graph.scopes[path] for path in graph.scopes if len(path) <= 1]
    # Reversed, so that an index of the monomial wins over one of the same id inside a function.
    return tuple(order), {index: labels[v] for scope in reversed(scopes) for index, v in scope.items()}


_loading = Lock()


def _graph_class() -> Any:
    """Return igraph's class of graphs, loaded once: threads that load it at the same time break it for all."""
    with _loading:
        return _loaded_graph_class()


@cache
def _loaded_graph_class() -> Any:
    """Load igraph without its drawing: importing that takes seconds where matplotlib is installed."""
    package = find_spec("igraph")
    core = PathFinder.find_spec("igraph._igraph", package.submodule_search_locations) if package else None
    # A process that has igraph in full keeps one copy of its compiled core.
    if core is None or core.loader is None or "igraph" in sys.modules:
        import igraph

        return igraph.Graph
    module = module_from_spec(core)
    core.loader.exec_module(module)
    return module.GraphBase


@lru_cache(maxsize=65536)
def _canonical_factors(factors: tuple[Factor, ...], free: tuple[Index, ...]) -> tuple[Factor, ...]:
    graph = _graph(factors, free)
    # Numbers of summed indices start above the free ones.
    return graph.rebuild(factors, ROOT, graph.canonical_labels(), len(free) and 1 + max(i.id for i in free))


def _graph(factors: tuple[Factor, ...], free: tuple[Index, ...]) -> _Graph:
    graph = _Graph()
    for index in free:
        # Free indices are told apart by their ids; summed ones all have one colour per size.
        graph.scopes[ROOT][index] = graph.add(("index", index.size, index.id))
    root = graph.add(("root",))
    for position, factor in enumerate(factors):
        graph.factor(factor, root, ROOT, position)
    return graph


@lru_cache(maxsize=4096)
def _collect_argument(factor: Factor) -> Factor:
    """Return a factor with equal terms of its argument added up, innermost first."""
    if isinstance(factor, TensorFactor):
        return factor
    local = factor.local
    totals: dict[tuple, tuple[Fraction, Monomial]] = {}
    bound = tuple(sorted(local))
    shift = 1 + max((i.id for i in bound), default=-1)
    # Terms with different names cannot be equal, so only the others need a costly canonical form.
    alike = Counter(t.names for t in factor.terms)
    for term in factor.terms:
        inner = collect_arguments(_without_preference(contract_identities(term, local), local), local)
        if alike[term.names] == 1:
            totals[term.names] = (inner.coefficient, inner)
            continue
        # Ids outside `local` are the term's own: move them above the free ones before labelling.
        own = [i for i in dict.fromkeys(inner.all_indices()) if i not in local]
        moved = inner.renamed({old: Index(shift + k, old.size) for k, old in enumerate(own)})
        key = (inner.powers, _canonical_factors(moved.factors, bound))
        number = totals.get(key, (Fraction(0), inner))[0] + inner.coefficient
        totals[key] = (number, inner)
    terms = tuple(Monomial(number, inner.powers, inner.factors) for number, inner in totals.values() if number)
    # Cancelled terms may have taken an index with them: the function no longer depends on it.
    present = {i for t in terms for i in t.indices()}
    free = tuple(i for i in factor.free if i in present)
    return FunctionFactor(factor.function, factor.over, free, terms, factor.at)


def _without_preference(term: Monomial, local: frozenset[Index]) -> Monomial:
    """Move indices equal to two of the argument's own indices to a new index of neither.

    Identities are contracted, so I[i,j]*x[i,i] remains, with the smaller id; ids are arbitrary here, so it
    becomes I[i,k]*I[j,k]*x[k,k].
    """
    # After contraction, the first index of a pair stands for the whole class.
    pairs = [f.indices for f in term.factors if isinstance(f, TensorFactor) and f.tensor == IDENTITY]
    start = 1 + max((i.id for i in (*local, *term.all_indices())), default=-1)
    centres = {old: Index(start + k, old.size) for k, old in enumerate(dict.fromkeys(pair[0] for pair in pairs))}
    moved = [f.renamed(centres) for f in term.factors]
    own = [TensorFactor(IDENTITY, (old, centre)) for old, centre in centres.items()]
    return Monomial(term.coefficient, term.powers, (*moved, *own))


def slot_kind(tensor: str, slot: int) -> int:
    """Return the properties that a slot of a tensor shares with the slots that it can be exchanged with.

    The identity is symmetric; a condition in normal form is so in slots of one coefficient, the largest first.
    """
    if tensor == IDENTITY:
        return 0
    if is_condition(tensor) and tensor not in (LESS, AT_MOST):
        return -comparison(tensor).slots[slot]
    return slot


Path = tuple[int, ...]
"""Where a term or factor stands in the tree of nested functions: positions, alternating factor and term."""

ROOT: Path = ()


@dataclass
class _Graph:
    """The coloured graph of a product of factors.

    `scopes` maps the path of a term to the vertices of its visible indices: a term's summed indices are its own,
    even if two terms call theirs by one id.
    """

    colours: list[tuple] = field(default_factory=list)
    edges: list[tuple[int, int]] = field(default_factory=list)
    vertices: dict[Path, int] = field(default_factory=dict)
    scopes: dict[Path, dict[Index, int]] = field(default_factory=lambda: {ROOT: {}})

    def add(self, colour: tuple) -> int:
        self.colours.append(colour)
        return len(self.colours) - 1

    def index(self, index: Index, scope: dict[Index, int]) -> int:
        if index not in scope:
            scope[index] = self.add(("index", index.size, "summed"))
        return scope[index]

    def mark(self, vertex: int, kind: tuple, index: int) -> None:
        # A vertex in the middle stands for an edge's kind: BLISS colours vertices, not edges.
        mark = self.add(kind)
        self.edges += [(vertex, mark), (mark, index)]

    def factor(self, factor: Factor, parent: int, term: Path, position: int) -> None:
        path, scope, depth = (*term, position), self.scopes[term], len(term)
        if isinstance(factor, TensorFactor):
            vertex = self.add(("tensor", depth, factor.tensor, len(factor.indices)))
            for k, index in enumerate(factor.indices):
                self.mark(vertex, ("slot", slot_kind(factor.tensor, k)), self.index(index, scope))
        else:
            vertex = self.add(("function", depth, factor.function))
            inside = {i: self.index(i, scope) for i in factor.free}
            for index in factor.free:
                self.mark(vertex, ("free",), inside[index])
            for k, index in enumerate(factor.over):
                self.mark(vertex, ("over",), self.index(index, inside))
                # Ties each index of `over` to the one at which the result is read.
                if factor.at:
                    self.mark(len(self.colours) - 1, ("at",), self.index(factor.at[k], scope))
            self.scopes[path] = inside
            for number, inner in enumerate(factor.terms):
                # Each term gets a copy of the scope: its summed indices are not visible to the next.
                self.term(inner, vertex, (*path, number), dict(inside))
        self.vertices[path] = vertex
        self.edges.append((parent, vertex))

    def term(self, term: Monomial, parent: int, path: Path, scope: dict[Index, int]) -> None:
        # The coefficient is part of an argument's meaning: it colours the term.
        vertex = self.vertices[path] = self.add(("term", len(path), str(term.coefficient), term.powers))
        self.edges.append((parent, vertex))
        self.scopes[path] = scope
        for position, factor in enumerate(term.factors):
            self.factor(factor, vertex, path, position)

    def canonical_labels(self) -> list[int]:
        """Return the new number of every vertex; graphs equal up to relabelling get equal numbered graphs."""
        # Colours are numbered in the order of their text: the same palette in every process.
        palette = {colour: number for number, colour in enumerate(sorted(set(self.colours), key=repr))}
        graph = _graph_class()(n=len(self.colours), edges=self.edges)
        order = graph.canonical_permutation(color=[palette[c] for c in self.colours])
        labels = [0] * len(order)
        for new, old in enumerate(order):  # igraph >= 1.0 gives the old vertex at each new place
            labels[old] = new
        return labels

    def rebuild(self, factors: Sequence[Factor], term: Path, labels: list[int], start: int) -> tuple[Factor, ...]:
        """Return the factors in the order of their labels, with indices numbered by theirs, from `start`."""
        summed = [v for v, colour in enumerate(self.colours) if colour[0] == "index" and colour[2] == "summed"]
        # Summed indices are numbered in the order of their labels, without gaps.
        summed.sort(key=lambda v: labels[v])
        ids = {v: start + k for k, v in enumerate(summed)}
        ids |= {v: c[2] for v, c in enumerate(self.colours) if c[0] == "index" and c[2] != "summed"}
        return self._rebuild(factors, term, labels, ids)

    def _rebuild(
        self, factors: Sequence[Factor], term: Path, labels: list[int], ids: dict[int, int]
    ) -> tuple[Factor, ...]:
        placed = []
        for position, factor in enumerate(factors):
            path = (*term, position)
            if isinstance(factor, TensorFactor):
                indices = self._names(factor.indices, term, ids)
                # Not in slot order: slots of one kind are exchangeable.
                if is_fixed(factor.tensor):
                    tensor, pairs = factor.tensor, enumerate(indices)
                    indices = tuple(i for _, i in sorted(pairs, key=lambda p: (slot_kind(tensor, p[0]), p[1])))
                new: Factor = TensorFactor(factor.tensor, indices)
            else:
                new = self._rebuild_function(factor, path, labels, ids)
            placed.append((labels[self.vertices[path]], new))
        placed.sort(key=lambda pair: pair[0])
        return tuple(f for _, f in placed)

    def _rebuild_function(
        self, factor: FunctionFactor, path: Path, labels: list[int], ids: dict[int, int]
    ) -> FunctionFactor:
        terms = []
        for number, term in enumerate(factor.terms):
            inner = (*path, number)
            new = Monomial(term.coefficient, term.powers, self._rebuild(term.factors, inner, labels, ids))
            terms.append((labels[self.vertices[inner]], new))
        terms.sort(key=lambda pair: pair[0])
        free = tuple(sorted(self._names(factor.free, path, ids)))
        over = self._names(factor.over, path, ids)
        at = self._names(factor.at, path[:-1], ids)
        # `over` and `at` are sorted as pairs, so that each index keeps its place of reading.
        pairs = sorted(zip(over, at, strict=True)) if at else [(i, i) for i in sorted(over)]
        return FunctionFactor(
            factor.function,
            tuple(o for o, _ in pairs),
            free,
            tuple(t for _, t in terms),
            tuple(a for _, a in pairs) if at else (),
        )

    def _names(self, indices: tuple[Index, ...], path: Path, ids: dict[int, int]) -> tuple[Index, ...]:
        scope = self.scopes[path]
        return tuple(Index(ids[scope[i]], i.size) for i in indices)
