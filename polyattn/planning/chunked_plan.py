"""`ChunkedPlan`: a causal specification chunk by chunk, with its costs beside those of the masked form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING

from polyattn.algebra import Spec
from polyattn.planning.chunks import Chunks
from polyattn.planning.graph import ITEMSIZE
from polyattn.planning.memory import Memory
from polyattn.planning.plan import Plan

if TYPE_CHECKING:
    from polyattn.planning.costs import Device


GROUP = 64
"""The most chunks that are computed at once, as a batch."""


@dataclass(frozen=True)
class ChunkedPlan:
    """A causal specification in chunks of its positions: masked within a chunk, states between them.

    Attributes:
        spec: the specification.
        equations: those of a chunk.
        length: positions in a chunk; the last one may be shorter.
        number: number of chunks.
        plans: of the output of `group` chunks, then of each state's summand and kept factor.
        masked: the plan of the whole with masks.
        allocations: counts the memory of the lowered plan; plans that differ in it alone are equal.
    """

    spec: Spec
    equations: Chunks
    length: int
    number: int
    plans: tuple[Plan, ...]
    masked: Plan
    allocations: Callable[[ChunkedPlan], Memory] | None = field(default=None, compare=False, repr=False)

    objective = strategy = "chunked"

    @property
    def group(self) -> int:
        """Return the number of chunks that are computed at once."""
        return min(GROUP, self.number)

    @property
    def batch(self) -> int:
        """Return the batch size assumed in planning."""
        return self.masked.batch

    @property
    def sizes(self) -> dict[str, int]:
        """Return the number of every size of the specification."""
        return self.masked.sizes

    @property
    def flops(self) -> int:
        """Floating-point operations of one forward evaluation, two per multiply-accumulate."""
        return 2 * self.macs

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one forward evaluation of the whole batch."""
        return self.number * sum(p.macs for p in self.plans) // self.group + self.scanned

    @property
    def scanned(self) -> int:
        """Return the multiply-accumulates of states with their decays between chunks."""
        known = self.masked.graph.known
        decayed = (s.channels for s in self.equations.states if s.kept is not None)
        return self.number * self.batch * sum(prod(int(a) if a.isdigit() else known[a] for a in s) for s in decayed)

    @property
    def training_macs(self) -> int:
        """Multiply-accumulates of a forward and a backward pass."""
        return self.number * sum(p.training_macs for p in self.plans) // self.group + 3 * self.scanned

    @property
    def state_bytes(self) -> int:
        known = self.masked.graph.known
        numbers = (prod(int(a) if a.isdigit() else known[a] for a in s) for _, s in self.equations.shapes)
        return ITEMSIZE * self.batch * sum(numbers)

    @cached_property
    def memory(self) -> Memory | None:
        """Return the memory as torch allocates it, with the backward pass where one is planned; None if not counted."""
        return None if self.allocations is None else self.allocations(self)

    @property
    def macs_as_run(self) -> int:
        """Return the multiply-accumulates of the lowered forward pass; the steps' where they are not counted."""
        return self.macs if self.memory is None else self.memory.macs

    @property
    def peak_bytes(self) -> int:
        """Return the most bytes allocated at once, in float32: counted, or those of the parts, states and output."""
        if self.memory is not None:
            return self.memory.peak
        output = self.masked.graph.bytes_of(self.masked.output.value)
        return output + 2 * self.group * self.state_bytes + max(p.peak_bytes for p in self.plans)

    @property
    def kept_bytes(self) -> int:
        """Return the bytes kept for the backward pass, in float32: linear in the number of positions."""
        if self.memory is not None:
            return self.memory.kept
        return self.number * (self.state_bytes + sum(p.kept_bytes for p in self.plans) // self.group)

    def seconds(self, device: Device) -> float:
        """Return the time by the roofline of a device, with a backward pass where one is planned."""
        return self.number * sum(seconds(p, device) for p in self.plans) / self.group

    @property
    def title(self) -> str:
        """Return a line that says which plan this is."""
        states = ", ".join(f"{n}[{','.join(s)}]" for n, s in self.equations.shapes)
        return (
            f"plan of {self.spec.output} in {self.number} chunks of {self.length} along {self.equations.size}; {states}"
        )

    def __repr__(self) -> str:
        return f"<{self.title}: {self.macs:,} MACs>"

    def __str__(self) -> str:
        return "\n".join(
            [
                self.title,
                f"total {self.macs:,} MACs; masked {self.masked.macs:,} MACs",
                f"peak {self.peak_bytes:,} bytes in float32; masked {self.masked.peak_bytes:,} bytes",
                *(f"\n{p.spec.output} of {self.group} chunks:\n{p}" for p in self.plans),
            ]
        )


def seconds(plan: Plan, device: Device) -> float:
    """Return a plan's time by the roofline of a device, with its backward pass if it has one."""
    return device.seconds(plan.graph) + (device.seconds(plan.backward.graph) if plan.backward is not None else 0.0)
