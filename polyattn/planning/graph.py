"""`Graph`: nodes with outputs at given sizes, and their costs."""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from polyattn.algebra import Index
from polyattn.language.conditions import comparison, is_condition
from polyattn.language.sizes import derived, letter_of
from polyattn.language.syntax import IDENTITY
from polyattn.planning.steps import (
    BATCH,
    Add,
    Apply,
    Constant,
    Contract,
    Convolve,
    Identity,
    Leaf,
    Node,
    Operand,
    Pullback,
    loop_indices,
    materialises_product,
    multiplies,
    numel,
    placed,
    relation_indices,
    swapped_axes,
)
from polyattn.planning.windows import relation_text

if TYPE_CHECKING:
    import sympy

ITEMSIZE = 4
"""Bytes of one entry in the memory figures: float32."""


@dataclass(frozen=True)
class Step:
    """One step of a plan.

    Attributes:
        name: name of the value.
        operation: "contract", "sum", "scale", "add", a function's name, with ' for its vector-Jacobian product, ...
        equation: in einsum letters, with the names of tensors or earlier steps; b is the batch.
        shape: shape of the value.
        macs: multiply-accumulates (products of two tensors' entries; adding and scaling count none).
        complexity: the same as text in the sizes.
        symmetric: whether the value is symmetric as a product of a value with itself, such as XᵀX.
        distinct_macs: multiply-accumulates for its distinct entries alone, about half if it is symmetric.
    """

    name: str
    operation: str
    equation: str
    shape: tuple[int, ...]
    macs: int
    complexity: str
    symmetric: bool
    distinct_macs: int


@dataclass(frozen=True)
class Graph:
    """Nodes, operands before their users, and the requested values.

    Attributes:
        nodes: the evaluation graph.
        outputs: the results, each with its indices in the requested order.
        sizes: the number of every atomic size, the batch included, as sorted pairs.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[Operand, ...]
    sizes: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, nodes: Sequence[Node], outputs: Sequence[Operand], sizes: dict[str, int]) -> Graph:
        """Return the graph of the nodes on which the outputs depend."""
        needed = {o.value for o in outputs}
        # Operands come before their users, so one backward sweep reaches every ancestor.
        for k in range(len(nodes) - 1, -1, -1):
            if k in needed:
                needed.update(o.value for o in nodes[k].operands)
        numbers = {old: new for new, old in enumerate(sorted(needed))}

        def move(operand: Operand) -> Operand:
            return Operand(numbers[operand.value], operand.indices)

        kept = tuple(replace(nodes[k], operands=tuple(map(move, nodes[k].operands))) for k in sorted(needed))
        return cls(kept, tuple(map(move, outputs)), tuple(sorted(sizes.items())))

    def at(self, sizes: Mapping[str, int]) -> Graph:
        """Return the same nodes for other numbers of the atomic sizes, the batch included."""
        return replace(self, sizes=tuple(sorted(sizes.items())))

    @cached_property
    def known(self) -> dict[str, int]:
        return dict(self.sizes)

    def macs_of(self, node: Node) -> int:
        return numel(loop_indices(node), self.known) if multiplies(node) else 0

    def distinct_macs_of(self, node: Node) -> int:
        """Count the multiply-accumulates for the entries on and above the diagonal of a symmetric product."""
        # n (n + 1) / 2 of n² entries; without symmetry `side` is the empty product 1 and the count is unchanged.
        side = numel([first for first, _ in swapped_axes(node)], self.known)
        return self.macs_of(node) * (side + 1) // (2 * side)

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of one evaluation."""
        return sum(map(self.macs_of, self.nodes))

    @cached_property
    def distinct_macs(self) -> int:
        """Count the multiply-accumulates of one evaluation with each entry of a symmetric product made once."""
        return sum(map(self.distinct_macs_of, self.nodes))

    def bytes_of(self, number: int) -> int:
        """Return the size of a node's value in bytes, in float32."""
        return ITEMSIZE * numel(self.nodes[number].output, self.known)

    @cached_property
    def peak_bytes(self) -> int:
        """Return the peak bytes of values other than leaves, in float32."""
        return self.peak({})

    def peak(self, inside: Mapping[int, int], held: Collection[int] = ()) -> int:
        """Return the peak bytes where some values, inside of the kernel that makes another one, are not stored.

        Args:
            held: values that are not freed, as the outputs are not.
        """
        last = {o.value: inside.get(k, k) for k, node in enumerate(self.nodes) for o in node.operands}
        ends: dict[int, list[int]] = {}
        # Outputs are read after the last step, so they are never freed.
        last |= dict.fromkeys((*(o.value for o in self.outputs), *held), len(self.nodes))
        alive, peak = 0, 0
        for value, step in last.items():
            if value not in inside and not isinstance(self.nodes[value], Leaf):
                ends.setdefault(step, []).append(value)
        for k, node in enumerate(self.nodes):
            if isinstance(node, Leaf) or k in inside:
                continue
            stored = materialises_product(node) and k not in inside.values()
            temporary = ITEMSIZE * self.macs_of(node) if stored else 0
            # Operands are freed only after the step: while it runs, they and its result are alive together.
            alive += self.bytes_of(k)
            peak = max(peak, alive + temporary)
            alive -= sum(map(self.bytes_of, ends.get(k, ())))
        return peak

    @cached_property
    def complexity(self) -> sympy.Expr:
        """Return the multiply-accumulates as a sympy expression in the atomic sizes, with B for the batch."""
        import sympy

        batch = batch_name(self.known)
        loops = [sympy.Mul(*(symbol(i.size, batch) for i in loop_indices(n))) for n in self.nodes if multiplies(n)]
        return sympy.expand(sympy.Add(*loops))

    def names(self, taken: Sequence[str] = (), stem: str = "t") -> tuple[str, ...]:
        """Return a name for every node: leaves keep their tensor's, steps are t1, t2, ... where these are free."""
        used = {*taken, *(n.tensor for n in self.nodes if isinstance(n, Leaf))}
        free = (f"{stem}{k}" for k in range(1, 10**9) if f"{stem}{k}" not in used)
        return tuple(node.tensor if isinstance(node, Leaf) else next(free) for node in self.nodes)

    def steps(self, names: Sequence[str]) -> tuple[Step, ...]:
        """Return all nodes but leaves, in the order of execution."""
        batch = batch_name(self.known)
        return tuple(
            Step(
                names[k],
                _operation(node),
                _equation(node, names),
                tuple(numel([i], self.known) for i in node.output),
                self.macs_of(node),
                "*".join(batch if i.size == BATCH else i.size for i in loop_indices(node)) if multiplies(node) else "0",
                bool(swapped_axes(node)),
                self.distinct_macs_of(node),
            )
            for k, node in enumerate(self.nodes)
            if not isinstance(node, Leaf)
        )


def table(steps: Sequence[Step], macs: int) -> str:
    """Format steps as a table for a person to check."""
    rows = [("step", "operation", "equation", "shape", "MACs", "of all")]
    for s in steps:
        share = f"{100 * s.macs / macs:.1f} %" if macs and s.macs else ""
        shape = "x".join(map(str, s.shape)) or "scalar"
        operation = "symmetric" if s.symmetric and s.operation == "contract" else s.operation
        rows.append((s.name, operation, s.equation, shape, f"{s.macs:,} = {s.complexity}" if s.macs else "0", share))
    widths = [max(len(r[c]) for r in rows) for c in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(r, widths, strict=True)).rstrip() for r in rows]
    lines.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(lines)


def batch_name(sizes: Container[str]) -> str:
    """Return the name of the batch in a text: B, if no size is called so."""
    return BATCH if "B" in sizes else "B"


def symbol(size: str, batch: str = "B") -> sympy.Expr:
    """Return a size as a positive integer symbol, or as its number; the batch is called `batch`."""
    # Imported here: sympy takes longer to import than a plan takes to make.
    import sympy

    if size.isdigit():
        return sympy.Integer(int(size))
    if not size.isidentifier():
        form = derived(size)
        return sympy.Add(form.constant, *(c * symbol(s, batch) for s, c in form.terms))
    return sympy.Symbol(batch if size == BATCH else size, positive=True, integer=True)


def _operation(node: Node) -> str:
    if isinstance(node, Apply):
        return node.function
    if isinstance(node, Pullback):
        return f"{node.function}'"
    if isinstance(node, Add):
        return "add" if len(node.operands) > 1 else "permute"
    if isinstance(node, Identity):
        return "identity" if node.tensor == IDENTITY else "condition"
    if isinstance(node, Constant):
        return "one"
    if isinstance(node, Convolve):
        return "convolve" if len(node.operands) == 2 else "window"
    assert isinstance(node, Contract)
    if len(node.operands) == 2:
        return "contract" if node.summed else "multiply"
    if node.summed:
        return "sum"
    return "scale" if node.output == node.operands[0].indices else "diagonal"


def fixed_text(node: Node, letters: Sequence[str]) -> str:
    """Return the identity or a condition with letters in its slots."""
    tensor = node.tensor if isinstance(node, Identity) else IDENTITY
    if not is_condition(tensor):
        return f"{tensor}[{','.join(letters)}]"
    width = max(1, len(letters) // max(1, len(comparison(tensor).slots)))
    slots = [letters[k : k + width] for k in range(0, len(letters), width)]
    return tensor.format(*(s[0] if len(s) == 1 else f"({' '.join(s)})" for s in slots))


def _equation(node: Node, names: Sequence[str]) -> str:
    letters: dict[Index, str] = {}
    used: dict[str, int] = {}
    inside = [*(i for o in node.operands for i in o.indices), *relation_indices(node)]
    for index in dict.fromkeys([*inside, *node.output]):
        stem = letter_of(index.size)
        # n, n1, n2, ...: the letter of the size, numbered from the second index on.
        used[stem] = used.get(stem, -1) + 1
        letters[index] = f"{stem}{used[stem] or ''}"

    def access(name: str, indices: tuple[Index, ...]) -> str:
        return f"{name}[{','.join(letters[i] for i in indices)}]" if indices else name

    parts = [access(names[o.value], o.indices) for o in node.operands]
    relations = [relation_text(r, letters) for r in placed(node)]
    if isinstance(node, Contract | Convolve):
        parts += relations
        text = " * ".join(([] if node.coefficient.is_one else [str(node.coefficient)]) + parts)
    elif isinstance(node, Add):
        text = " + ".join(p if c.is_one else f"{c}*{p}" for p, c in zip(parts, node.coefficients, strict=True))
    elif isinstance(node, Apply | Pullback):
        over = f"[{','.join(letters[i] for i in node.over)}]" if node.over else ""
        text = " * ".join([f"{_operation(node)}{over}({', '.join(parts)})", *relations])
    else:
        text = "1" if isinstance(node, Constant) else fixed_text(node, [letters[i] for i in node.output])
    return f"[{','.join(letters[i] for i in node.output)}] = {text}"
