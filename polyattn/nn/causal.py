"""Causal specifications run chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from polyattn.algebra import Spec
from polyattn.language import value_of
from polyattn.lowering.chunk_loop import run_chunks
from polyattn.planning.chunks import chunks
from polyattn.runtime.function import SpecFunction


class ChunkRunner:
    """The functions of a chunk of a specification at given sizes.

    Args:
        known: numbers of the atomic sizes but the ordered one.
    """

    def __init__(
        self,
        spec: Spec,
        size: str,
        known: Mapping[str, int],
        objective: str,
        functions: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    ):
        self.spec, self.size, self.known = spec, size, dict(known)
        self.equations = chunks(spec, size, tuple(sorted(known.items())))

        def function(part: Spec) -> SpecFunction:
            own = {n: f for n, f in (functions or {}).items() if n in part.functions}
            sizes = {n: v for n, v in known.items() if n in part.sizes.names}
            # Multiplied out, a chunk has no author's order whose digits could be kept.
            return SpecFunction(part, sizes, objective, own, "any")

        self.parts = [function(part) for part in self.equations.parts]

    def axis(self, tensor: str) -> int | None:
        return next((k for k, slot in enumerate(self.spec.shape(tensor)) if self.size in slot), None)

    def initial(self, like: Tensor, batch: int) -> dict[str, Tensor]:
        shapes = {n: [value_of((a,), self.known) for a in s] for n, s in self.equations.shapes}
        return {n: like.new_zeros(batch, *shape) for n, shape in shapes.items()}

    def run(
        self,
        inputs: Sequence[Tensor],
        parameters: Mapping[str, Tensor],
        state: Mapping[str, Tensor] | None,
        length: int,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the output of a sequence in chunks of `length` positions, and the states after it."""
        named = dict(zip(self.spec.inputs, inputs, strict=True))
        axes = {n: self.axis(n) for n in named}
        blocks = {
            n: value_of([a for a in self.spec.shape(n)[axis] if a != self.size], self.known)
            for n, axis in axes.items()
            if axis is not None
        }
        current = dict(state) if state is not None else self.initial(inputs[0], inputs[0].shape[0])
        along = self.axis(self.spec.output)
        assert along is not None
        parts: list[Any] = self.parts
        return run_chunks(self.equations, lambda _: parts, axes, along, blocks, length, named, parameters, current)
