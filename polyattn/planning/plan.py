"""`Plan`: an evaluation graph at given sizes, with its cost, that prints as a table a person can check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import prod
from typing import TYPE_CHECKING

from polyattn.algebra import Index, Spec
from polyattn.errors import SizeError
from polyattn.language import value_of
from polyattn.planning.builder import Builder
from polyattn.planning.expanded import contract_monomials
from polyattn.planning.orders import cheapest_order, written_order
from polyattn.planning.steps import (
    Add,
    Apply,
    Constant,
    Contract,
    Identity,
    Leaf,
    Node,
    Operand,
    materialises_product,
    multiplies,
    numel,
    product_indices,
)
from polyattn.planning.written import follow_definitions

if TYPE_CHECKING:
    import sympy

OBJECTIVES = ("forward", "as_written")
BATCH = "B"


@dataclass(frozen=True)
class Step:
    """One step of a plan.

    Attributes:
        name: of the value that it makes.
        operation: "contract", "sum", "scale", "add", a function's name, ...
        equation: in einsum letters, with the tensors' or earlier steps' names.
        shape: of the value, the batch first where it has one.
        macs: multiply-accumulates (products of two tensors' entries; adding and scaling count none).
        complexity: the same as text in the sizes.
    """

    name: str
    operation: str
    equation: str
    shape: tuple[int, ...]
    macs: int
    complexity: str


@dataclass(frozen=True)
class Plan:
    """How a specification is computed at given sizes.

    Attributes:
        spec: the specification.
        sizes: the number of every size, as sorted pairs.
        batch: the batch size.
        objective: what it was chosen for.
        strategy: which candidate was chosen: "as written", "definitions" or "expanded".
        nodes: the evaluation graph, operands first.
        output: the node that is the output, with its indices in the order of the output's atomic slots.
    """

    spec: Spec
    sizes: tuple[tuple[str, int], ...]
    batch: int
    objective: str
    strategy: str
    nodes: tuple[Node, ...]
    output: Operand

    @cached_property
    def known(self) -> dict[str, int]:
        return dict(self.sizes)

    @cached_property
    def macs(self) -> int:
        """Multiply-accumulates of one evaluation of the whole batch."""
        return sum(self._macs(node) for node in self.nodes)

    @property
    def flops(self) -> int:
        """Floating-point operations, two per multiply-accumulate."""
        return 2 * self.macs

    def _macs(self, node: Node) -> int:
        return numel(product_indices(node), node.batched, self.known, self.batch) if multiplies(node) else 0

    def bytes_of(self, number: int, itemsize: int = 4) -> int:
        """The size of a node's value in bytes."""
        node = self.nodes[number]
        return itemsize * numel(node.output, node.batched, self.known, self.batch)

    @cached_property
    def peak_bytes(self) -> int:
        """The most bytes that intermediates and the output take at once, in float32, inputs and parameters aside."""
        last = {o.value: k for k, node in enumerate(self.nodes) for o in node.operands}
        last[self.output.value] = len(self.nodes)
        alive, peak = 0, 0
        for k, node in enumerate(self.nodes):
            if isinstance(node, Leaf):
                continue
            temporary = 4 * self._macs(node) if materialises_product(node) else 0
            alive += self.bytes_of(k)
            peak = max(peak, alive + temporary)
            alive -= sum(
                self.bytes_of(v)
                for v in {o.value for o in node.operands}
                if last[v] == k and not isinstance(self.nodes[v], Leaf)
            )
        return peak

    @cached_property
    def complexity(self) -> sympy.Expr:
        """The multiply-accumulates as a sympy expression in the sizes, with B for the batch."""
        import sympy

        total: sympy.Expr = sympy.Integer(0)
        for node in self.nodes:
            if multiplies(node):
                total += sympy.Mul(*(_symbol(s) for s in _loop_sizes(node)))
        return self._in_whole_sizes(total)

    def _in_whole_sizes(self, expression: sympy.Expr) -> sympy.Expr:
        """Products of all parts of a split size written as that size, where they occur together."""
        import sympy

        result = sympy.expand(expression)
        for split in self.spec.sizes.splits:
            parts = sympy.Mul(*(_symbol(a) for a in self.spec.sizes.atoms(split.size)))
            result = sympy.Add(*(_replace_product(t, parts, _symbol(split.size)) for t in sympy.Add.make_args(result)))
        return sympy.expand(result)

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """The steps in the order in which they run; inputs and parameters are no steps."""
        names = self.names
        return tuple(
            Step(
                names[k],
                _operation(node),
                _equation(node, names),
                ((self.batch,) if node.batched else ()) + tuple(value_of([i.size], self.known) for i in node.output),
                self._macs(node),
                "*".join(_loop_sizes(node)) if multiplies(node) else "0",
            )
            for k, node in enumerate(self.nodes)
            if not isinstance(node, Leaf)
        )

    @cached_property
    def names(self) -> tuple[str, ...]:
        """A name for every node: tensors keep theirs, steps are t1, t2, ... where no tensor is called so."""
        taken = {*self.spec.inputs, *self.spec.parameters}
        free = (f"t{k}" for k in range(1, 10**9) if f"t{k}" not in taken)
        return tuple(node.tensor if isinstance(node, Leaf) else next(free) for node in self.nodes)

    def __str__(self) -> str:
        sizes = " ".join(f"{n}={v}" for n, v in self.sizes)
        header = f"plan of {self.spec.output}, {self.strategy}, for B={self.batch} {sizes}"
        rows = [("step", "operation", "equation", "shape", "MACs", "of all")]
        for s in self.steps:
            share = f"{100 * s.macs / self.macs:.1f} %" if self.macs and s.macs else ""
            macs = f"{s.macs:,} = {s.complexity}" if s.macs else "0"
            rows.append((s.name, s.operation, s.equation, "x".join(map(str, s.shape)) or "scalar", macs, share))
        widths = [max(len(r[c]) for r in rows) for c in range(6)]
        table = ["  ".join(cell.ljust(w) for cell, w in zip(r, widths, strict=True)).rstrip() for r in rows]
        table.insert(1, "  ".join("-" * w for w in widths))
        footer = [
            f"total {self.macs:,} MACs ({self.flops:,} FLOPs) = {self.complexity}",
            f"peak {self.peak_bytes:,} bytes of intermediates in float32",
        ]
        return "\n".join([header, *table, *footer])


def plan(
    spec: Spec | str,
    sizes: Mapping[str, int],
    objective: str = "forward",
    *,
    batch: int | None = None,
) -> Plan:
    """The cheapest known way to compute a specification at given sizes.

    Args:
        spec: a specification or its text.
        sizes: a number for every size (split sizes through any parts that fix them), and "B" for the batch
            (default 1).
        objective: "forward" takes the least multiply-accumulates among the definitions as written, the definitions
            with each product in its cheapest order, and the expanded polynomial with each monomial in its cheapest
            order; equal ones are decided by peak memory. "as_written" follows the author.
        batch: the batch, for a specification that has a size B of its own.

    Raises:
        SizeError: a size is missing, unknown or contradictory, or the objective is unknown.
        BudgetError: the expansion is too large.
    """
    spec = Spec(spec) if isinstance(spec, str) else spec
    if objective not in OBJECTIVES:
        raise SizeError(f"unknown objective {objective!r}; there are {', '.join(OBJECTIVES)}")
    given = dict(sizes)
    if BATCH not in spec.sizes.names and BATCH in given:
        number = given.pop(BATCH)
        if batch is not None and batch != number:
            raise SizeError(f"the batch is given twice: B={number} and batch={batch}")
        batch = number
    batch = 1 if batch is None else batch
    if isinstance(batch, bool) or not hasattr(batch, "__index__") or int(batch) < 1:
        raise SizeError(f"the batch must be a positive whole number, not {batch!r}")
    known = spec.sizes.solve(given, spec.sizes.names)
    return _plan(spec, tuple(sorted(known.items())), int(batch), objective)


@lru_cache(maxsize=4096)
def _plan(spec: Spec, sizes: tuple[tuple[str, int], ...], batch: int, objective: str) -> Plan:
    written = _candidate(spec, sizes, batch, objective, "as written")
    if objective == "as_written":
        return written
    others = [_candidate(spec, sizes, batch, objective, s) for s in ("definitions", "expanded")]
    return min([written, *others], key=lambda p: (p.macs, p.peak_bytes))


def _candidate(spec: Spec, sizes: tuple[tuple[str, int], ...], batch: int, objective: str, strategy: str) -> Plan:
    known = dict(sizes)
    builder = Builder(known, batch, sum_early=strategy != "as written")
    if strategy == "as written":
        output = follow_definitions(spec, builder, written_order)
    elif strategy == "definitions":
        output = follow_definitions(spec, builder, cheapest_order(known, batch))
    else:
        output = contract_monomials(spec.polynomial(), builder, cheapest_order(known, batch))
    return Plan(spec, sizes, batch, objective, strategy, *_without_unused(builder.nodes, output))


def _without_unused(nodes: list[Node], output: Operand) -> tuple[tuple[Node, ...], Operand]:
    """The nodes that the output needs, renumbered."""
    from dataclasses import replace

    needed = {output.value}
    for k in range(len(nodes) - 1, -1, -1):
        if k in needed:
            needed.update(o.value for o in nodes[k].operands)
    numbers = {old: new for new, old in enumerate(sorted(needed))}

    def move(operand: Operand) -> Operand:
        return Operand(numbers[operand.value], operand.indices)

    kept = tuple(replace(nodes[k], operands=tuple(map(move, nodes[k].operands))) for k in sorted(needed))
    return kept, move(output)


def _loop_sizes(node: Node) -> list[str]:
    return ([BATCH] if node.batched else []) + [i.size for i in product_indices(node)]


def _symbol(size: str) -> sympy.Expr:
    import sympy

    return sympy.Integer(int(size)) if size.isdigit() else sympy.Symbol(size, positive=True, integer=True)


def _replace_product(term: sympy.Expr, parts: sympy.Expr, whole: sympy.Expr) -> sympy.Expr:
    """A monomial with as many whole copies of a product of symbols as it holds replaced by one symbol."""
    powers = term.as_powers_dict()
    wanted = parts.as_powers_dict()
    if any(not p.is_Symbol for p in wanted):
        return term
    times = min(int(powers.get(p, 0)) // int(n) for p, n in wanted.items())
    return term / parts**times * whole**times if times > 0 else term


def _operation(node: Node) -> str:
    if isinstance(node, Apply):
        return node.function
    if isinstance(node, Add):
        return "add" if len(node.operands) > 1 else "permute"
    if isinstance(node, Identity):
        return "identity"
    if isinstance(node, Constant):
        return "one"
    assert isinstance(node, Contract)
    if len(node.operands) == 2:
        return "contract" if node.summed else "multiply"
    if node.summed:
        return "sum"
    return "scale" if node.output == node.operands[0].indices else "diagonal"


def _equation(node: Node, names: tuple[str, ...]) -> str:
    letters: dict[Index, str] = {}
    used: dict[str, int] = {}
    for index in dict.fromkeys([*(i for o in node.operands for i in o.indices), *node.output]):
        stem = "i" if index.size.isdigit() else index.size[0].lower()
        used[stem] = used.get(stem, -1) + 1
        letters[index] = f"{stem}{used[stem] or ''}"

    def access(name: str, indices: tuple[Index, ...]) -> str:
        return f"{name}[{','.join(letters[i] for i in indices)}]" if indices else name

    parts = [access(names[o.value], o.indices) for o in node.operands]
    if isinstance(node, Contract):
        scale = "" if node.coefficient.is_one else f"{node.coefficient} * "
        text = scale + " * ".join(parts)
    elif isinstance(node, Add):
        terms = [p if c.is_one else f"{c}*{p}" for p, c in zip(parts, node.coefficients, strict=True)]
        text = " + ".join(terms)
    elif isinstance(node, Apply):
        over = f"[{','.join(letters[i] for i in node.over)}]" if node.over else ""
        text = f"{node.function}{over}({parts[0]})"
    else:
        text = "1" if isinstance(node, Constant) else access("I", node.output)
    return f"[{','.join(letters[i] for i in node.output)}] = {text}"


__all__ = ["OBJECTIVES", "Plan", "Step", "plan", "prod"]
