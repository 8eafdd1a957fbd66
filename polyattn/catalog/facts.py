"""Facts of an entry: who published the layer, and properties that the tests check against its equation."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np

from polyattn.algebra import Spec

Reach = Literal["all", "past", "window"] | int
"""How far a position sees along an axis: all of it, the positions up to its own, its own window, or so many steps."""


@dataclass(frozen=True)
class Facts:
    """Facts of an entry of the catalogue.

    Args:
        title: the layer's name in prose.
        source: paper and place in it.
        year: of the first publication.
        sizes: small numbers for the sizes, at which the tests check the facts.
        degree: degree of the polynomial in the inputs; None for a layer with functions.
        reach: how far an output position sees along each axis of positions; an axis that is not there is not mixed.
        equivariant: axes of the inputs under whose permutation the output is permuted with them or, where it does not
            have the axis, stays the same.
        symmetries: exchanges of parameters that leave the function the same, each as pairs that change places.
        relation: which other entry it is, under which names or conditions.
    """

    title: str
    source: str
    year: int
    sizes: Mapping[str, int]
    degree: int | None = 3
    reach: Mapping[str, Reach] = field(default_factory=dict)
    equivariant: tuple[str, ...] = ()
    symmetries: tuple[tuple[tuple[str, str], ...], ...] = ()
    relation: str = ""


@dataclass(frozen=True)
class Entry:
    """An entry of the catalogue: its facts, its specification, its reference.

    Args:
        name: as in `catalog.get(name)`.
        family: the family, as in `catalog.names(family)`.
        facts: known properties.
        function: returns the `Spec`, with options.
        loops: the reference in numpy, of one sample: the tensors by name, and the sizes that it names.
    """

    name: str
    family: str
    facts: Facts
    function: Callable[..., Spec]
    loops: Callable[..., np.ndarray]

    @cached_property
    def spec(self) -> Spec:
        """The specification without options."""
        return self.function()

    @property
    def year(self) -> int:
        """Year of the first publication."""
        return self.facts.year

    @property
    def source(self) -> str:
        """Paper and place in it."""
        return self.facts.source

    def reference(self, tensors: Mapping[str, Any], sizes: Mapping[str, int] | None = None) -> np.ndarray:
        """Return the layer's output for one sample by loops that share no code with the library.

        Args:
            tensors: inputs and parameters by name, without a batch axis.
            sizes: numbers for the sizes; those of `facts` unless given.
        """
        known = self.spec.sizes.solve(dict(sizes or self.facts.sizes), self.spec.sizes.names)
        wanted = [p for p in inspect.signature(self.loops).parameters if p[:1].isupper()]
        return np.asarray(self.loops(**tensors, **{name: known[name] for name in wanted}))
