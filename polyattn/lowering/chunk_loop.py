"""Causal specifications run in chunks: the sums within chunks as one batch, then the states from chunk to chunk.

A chunk's summand of a state does not depend on the state before, so that it is computed for many chunks at once; only
the running sums of the summands, with their decays, go from chunk to chunk. Then the outputs are one batch as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from polyattn.planning.chunked_plan import GROUP
from polyattn.planning.chunks import Chunks, ChunkState

Part = Callable[[Mapping[str, Tensor]], Tensor]
"""A part of the equations as a function of tensors by name."""


def run_chunks(
    equations: Chunks,
    parts: Callable[[int], list[Part]],
    axes: Mapping[str, int | None],
    along: int,
    blocks: Mapping[str, int],
    length: int,
    inputs: Mapping[str, Tensor],
    parameters: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return the output of a sequence, and the states after it.

    Args:
        parts: functions of `equations.parts` for a number of positions.
        axes: the ordered slot of each input; None for an input without one.
        along: the ordered slot of the output.
        blocks: numbers of an input's places along that slot that are one position.
        length: positions of a chunk.
        inputs: (B, *axes) each.
        state: before the first position.
    """
    first = next(n for n in inputs if axes[n] is not None)
    batch, total = inputs[first].shape[0], inputs[first].shape[(axes[first] or 0) + 1] // blocks[first]
    current, outputs, start = dict(state), [], 0
    while start < total:
        here_length = min(length, total - start)
        number = min(GROUP, (total - start) // here_length)
        here: dict[str, Tensor] = dict(parameters)
        for name, x in inputs.items():
            axis = axes[name]
            if axis is None:
                here[name] = x.unsqueeze(1).expand(batch, number, *x.shape[1:]).flatten(0, 1)
                continue
            block = blocks[name]
            piece = x.narrow(axis + 1, start * block, number * here_length * block)
            piece = piece.unflatten(axis + 1, (number, here_length * block))
            here[name] = piece.movedim(axis + 1, 1).flatten(0, 1)
        output, *rest = parts(here_length)
        functions = iter(rest)
        for made in equations.states:
            added = next(functions)(here).unflatten(0, (batch, number))
            kept = None if made.kept is None else next(functions)(here).unflatten(0, (batch, number))
            before, current[made.name] = _scanned(made, current[made.name], added, kept)
            here[made.name] = before.flatten(0, 1)
        y = output(here).unflatten(0, (batch, number))
        outputs.append(y.movedim(1, along + 1).flatten(along + 1, along + 2))
        start += number * here_length
    return (outputs[0] if len(outputs) == 1 else torch.cat(outputs, along + 1)), current


def _scanned(made: ChunkState, first: Tensor, added: Tensor, kept: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return a state before each chunk, (B, chunks, *channels), and behind the last one."""
    if kept is None:
        sums = torch.cat([first.unsqueeze(1), added], 1).cumsum(1)
        return sums[:, :-1], sums[:, -1]
    shape = [n if k in made.kept_axes else 1 for k, n in enumerate(first.shape[1:])]
    kept = kept.reshape(*kept.shape[:2], *shape)
    running = [first]
    for chunk in range(added.shape[1]):
        running.append(running[-1] * kept[:, chunk] + added[:, chunk])
    return torch.stack(running[:-1], 1), running[-1]
