"""The atlas as data: all pairs of layers related, in processes, and the edges that imply all others."""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from polyattn import catalog
from polyattn.algebra import Spec
from polyattn.errors import BudgetError, PolyattnError
from polyattn.relating import Invariants, Relation, invariants, relate
from polyattn.study.atlas.order import Pair, classes, reduced

EFFORT = 40_000
"""The number of steps of the search for one pair."""

BATCH = 24
"""Pairs of one task of a process."""

Progress = Any
"""A function of the number of pairs that are done, and of all."""


@dataclass(frozen=True)
class Layer:
    """A layer of the atlas.

    Attributes:
        name: its name in the catalogue, or that of a layer of one's own.
        spec: its specification.
        year: of its first publication; None for a layer of one's own.
        title, source, family: as in the catalogue; empty for a layer of one's own.
    """

    name: str
    spec: Spec
    year: int | None = None
    title: str = ""
    source: str = ""
    family: str = ""

    @property
    def degree(self) -> int | None:
        """The degree in the inputs; None if the layer is too large to expand."""
        try:
            return self.spec.degree
        except BudgetError:
            return None

    @cached_property
    def invariants(self) -> Invariants | None:
        """The properties that follow from the equation; None if it is too large to expand."""
        try:
            return invariants(self.spec)
        except BudgetError:
            return None

    def data(self) -> dict[str, Any]:
        """Return the layer for JSON."""
        return {
            "name": self.name,
            "title": self.title or self.name,
            "equation": str(self.spec),
            "year": self.year,
            "degree": self.degree,
            "polynomial": self.spec.is_polynomial,
            "parameters": {n: list(s) for n, s in self.spec.parameters.items()},
            "source": self.source,
            "family": self.family,
            "invariants": self.invariants.data() if self.invariants else None,
        }


@dataclass(frozen=True)
class Edge:
    """`first` becomes `second` under the conditions of the relation."""

    first: str
    second: str
    relation: Relation

    @property
    def file(self) -> str:
        """The name of the file of its proof."""
        return f"{self.first}--{self.second}.json"


@dataclass(frozen=True)
class Atlas:
    """Layers and the relations between them.

    Attributes:
        layers: the layers, by name.
        found: the relation of each pair of which the first was found to become the second.
        searched: the number of candidates looked at in all.
        cut: the pairs whose search ended because its effort was spent.
    """

    layers: Mapping[str, Layer]
    found: Mapping[Pair, Relation] = field(repr=False)
    searched: int = 0
    cut: tuple[Pair, ...] = ()

    @property
    def classes(self) -> tuple[tuple[str, ...], ...]:
        """The layers in classes: those that are special cases of each other."""
        return classes(tuple(self.layers), self.found)

    @property
    def edges(self) -> tuple[Edge, ...]:
        """The edges that imply all others by steps in a row."""
        weights = {pair: len(r.condition) for pair, r in self.found.items()}
        return tuple(Edge(*pair, self.found[pair]) for pair in reduced(tuple(self.layers), weights))

    def data(self, folder: str = "") -> dict[str, Any]:
        """Return the atlas for JSON.

        Args:
            folder: where the files of the proofs are, as it is to be written.
        """
        return {
            "layers": [layer.data() for layer in self.layers.values()],
            "classes": [list(members) for members in self.classes],
            "edges": [
                {
                    "from": e.first,
                    "to": e.second,
                    "given": list(e.relation.given),
                    "sizes": list(e.relation.sizes),
                    "inputs": dict(e.relation.inputs),
                    "renamed": dict(e.relation.renamed),
                    "left": str(e.relation.left),
                    "right": str(e.relation.right),
                    "certificate": f"{folder}/{e.file}" if folder else e.file,
                }
                for e in self.edges
            ],
            "pairs": len(self.layers) * (len(self.layers) - 1),
            "proved": len(self.found),
            "searched": self.searched,
            "undecided": [list(pair) for pair in self.cut],
        }

    def write_json(self, path: Path) -> Path:
        """Write the atlas as JSON, and its proofs beside it; return the folder of the proofs.

        Raises:
            PolyattnError: a file cannot be written.
        """
        folder = proofs_beside(path)
        write_proofs(self, folder)
        _write(path, json.dumps(self.data(folder.name), indent=1, ensure_ascii=False) + "\n")
        return folder


def proofs_beside(path: Path) -> Path:
    """Return the folder of the proofs of an atlas at `path`."""
    return path.with_name(f"{path.stem}_proofs")


def write_proofs(atlas: Atlas, folder: Path) -> None:
    """Write the verdict of each edge, as `polyattn check` reads it."""
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise PolyattnError(f"the folder {str(folder)!r} cannot be made: {error.strerror}; name another file") from None
    for edge in atlas.edges:
        assert edge.relation.verdict is not None
        _write(folder / edge.file, edge.relation.verdict.to_json(indent=1) + "\n")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise PolyattnError(f"cannot write to {str(path)!r}: {error.strerror}; name another file") from None


def build(
    names: Sequence[str] | None = None,
    own: Mapping[str, Spec] | None = None,
    *,
    only_own: bool = False,
    effort: int = EFFORT,
    processes: int | None = None,
    progress: Progress = None,
) -> Atlas:
    """Return the atlas of layers: every pair related, both ways.

    Args:
        names: names of the catalogue; all of them by default.
        own: layers of one's own, by name.
        only_own: relate only the pairs that have a layer of one's own.
        effort: number of steps of the search for one pair.
        processes: number of processes; by default one for each core.
        progress: called with the number of pairs that are done, and of all.

    Raises:
        SpecError: a name is unknown.
        PolyattnError: a layer of one's own has the name of another.
    """
    layers = {name: _entry(name) for name in (catalog.names() if names is None else names)}
    for name, spec in (own or {}).items():
        if name in layers:
            raise PolyattnError(f"a layer of your own has the name {name!r} of the catalogue; give it another")
        layers[name] = Layer(name, spec)
    mine = set(own or {})
    pairs = [(a, b) for a in layers for b in layers if a != b and (not only_own or mine & {a, b})]
    texts = {name: layer.spec for name, layer in layers.items()}
    batches = [pairs[k : k + BATCH] for k in range(0, len(pairs), BATCH)]
    tasks = [([(texts[a], texts[b]) for a, b in batch], effort) for batch in batches]
    found: dict[Pair, Relation] = {}
    cut, searched, done = [], 0, 0
    for batch, answers in zip(batches, _related(tasks, processes), strict=True):
        for pair, answer in zip(batch, answers, strict=True):
            searched += answer.searched
            if answer:
                found[pair] = answer
            elif not answer.complete:
                cut.append(pair)
        done += len(batch)
        if progress is not None:
            progress(done, len(pairs))
    return Atlas(layers, found, searched, tuple(cut))


def _entry(name: str) -> Layer:
    facts = catalog.entry(name).facts
    return Layer(name, catalog.get(name), facts.year, facts.title, facts.source, catalog.entry(name).family)


def _related(tasks: Sequence[Any], processes: int | None) -> Iterator[list[Relation]]:
    count = processes or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    if count == 1 or len(tasks) < 4:
        yield from map(_relate_all, tasks)
        return
    # Not forked: threads of numerical libraries do not survive that.
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_relate_all, tasks)


def _relate_all(task: tuple[Sequence[tuple[Spec, Spec]], int]) -> list[Relation]:
    pairs, effort = task
    return [_one(a, b, effort) for a, b in pairs]


def _one(a: Spec, b: Spec, effort: int) -> Relation:
    try:
        return relate(a, b, effort=effort)
    except PolyattnError:  # too large to expand
        return Relation(a, b, complete=False)
