"""Mutants of Python sources by edits of their syntax tree: a fault each, or a change of form that keeps the meaning."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """One edit.

    Attributes:
        file: path of the source.
        line: number of the edited line.
        kind: bounds, offsets, masks, strides, operators, order or accumulators; "form" keeps the meaning.
        change: what stood there and what stands there now.
        function: the function, or the class, that it is in.
    """

    file: str
    line: int
    kind: str
    change: str
    function: str
    tree: ast.Module
    node: ast.AST
    new: ast.AST

    @property
    def source(self) -> str:
        """Return the edited source."""
        edited = _Replace(self.node, self.new).visit(copy.deepcopy(self.tree, {id(self.node): self.node}))
        return ast.unparse(ast.fix_missing_locations(edited))


COMPARED = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
TURNED = {ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE}
COMPUTED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mod, ast.Mod: ast.FloorDiv,
            ast.Div: ast.Mult}  # fmt: skip
CALLED = {"minimum": "maximum", "maximum": "minimum", "sum": "max", "max": "sum", "zeros": "ones", "cdiv": "div"}
LEFT_OUT = {"problem", "candidates", "free", "doc"}
"""Names whose assignments choose a tile and change no result."""

IGNORED = {"to", "allocate", "allocate_like", "rows_like", "input_precision", "best", "constexpr", "jit"}
"""Calls whose arguments are not edited: conversions, memory, tiles."""


def _edits(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Yield the replacements of one node, each with its kind."""
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in COMPARED:
        yield "bounds", ast.Compare(node.left, [COMPARED[type(node.ops[0])]()], node.comparators)
        if type(node.ops[0]) in TURNED:
            yield "form", ast.Compare(node.comparators[0], [TURNED[type(node.ops[0])]()], [node.left])
    if isinstance(node, ast.BinOp):
        kind = type(node.op)
        if kind is ast.BitAnd:
            yield "masks", node.left
            yield "masks", node.right
            yield "form", ast.BinOp(node.right, node.op, node.left)
        elif kind in COMPUTED:
            name = "strides" if kind is ast.Mult and _strided(node) else "operators"
            yield name, ast.BinOp(node.left, COMPUTED[kind](), node.right)
            if kind in (ast.FloorDiv, ast.Mod, ast.Sub):
                yield "order", ast.BinOp(node.right, node.op, node.left)
            elif kind in (ast.Add, ast.Mult):
                yield "form", ast.BinOp(node.right, node.op, node.left)
            if kind is ast.Add:
                yield "offsets", node.left
                yield "offsets", node.right
    if isinstance(node, ast.Constant) and type(node.value) is int and node.value < 64:
        yield "offsets", ast.Constant(node.value + 1)
    if isinstance(node, ast.Constant) and type(node.value) is float:
        yield "masks", ast.Constant(node.value + 1.0)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        called = node.func.attr
        if called in CALLED and not (called == "sum" and not _is(node.func.value, "tl")):
            other = ast.Attribute(node.func.value, CALLED[called], ast.Load())
            yield "operators", ast.Call(other, node.args, node.keywords)
        if called in ("trans", "exp", "log") and _is(node.func.value, "tl"):
            yield "order", node.args[0]
    if isinstance(node, ast.Call):
        names = [k for k, a in enumerate(node.args) if isinstance(a, ast.Name)]
        for k in names:
            if k + 1 in names and node.args[k].id != node.args[k + 1].id:  # type: ignore[attr-defined]
                args = [*node.args[:k], node.args[k + 1], node.args[k], *node.args[k + 2 :]]
                yield "order", ast.Call(node.func, args, node.keywords)


def _statements(node: ast.stmt) -> Iterator[tuple[str, ast.stmt]]:
    if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add):
        target = ast.Name(node.target.id, ast.Store()) if isinstance(node.target, ast.Name) else node.target
        yield "accumulators", ast.Assign([target], node.value)
        yield "accumulators", ast.AugAssign(node.target, ast.Sub(), node.value)
        yield "accumulators", ast.Pass()


def _is(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _strided(node: ast.AST) -> bool:
    words = ("stride", "_row", "_column", "_batch", "_head", "_channel", "_group", "_step")
    return any(isinstance(n, ast.Name) and any(w in n.id for w in words) for n in ast.walk(node))


class _Replace(ast.NodeTransformer):
    def __init__(self, node: ast.AST, new: ast.AST):
        self.node, self.new = node, new

    def visit(self, node: ast.AST) -> ast.AST:
        return self.new if node is self.node else super().visit(node)


def _editable(tree: ast.Module) -> Iterator[tuple[ast.AST, str]]:
    """Yield the nodes of functions that compute, with the name of the function, or of the class of a method.

    Left out are annotations, decorators, defaults and the choice of a tile.
    """

    def inside(node: ast.AST) -> Iterator[ast.AST]:
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in IGNORED:
                yield from inside(node.func)
                return
        if isinstance(node, ast.Assign) and any(n.id in LEFT_OUT for n in ast.walk(node) if isinstance(n, ast.Name)
                                                and isinstance(n.ctx, ast.Store)):  # fmt: skip
            return
        if isinstance(node, ast.FunctionDef):
            for part in node.body:
                yield from inside(part)
            return
        yield node
        for child in ast.iter_child_nodes(node):
            yield from inside(child)

    for top in tree.body:
        for function in top.body if isinstance(top, ast.ClassDef) else [top]:
            if isinstance(function, ast.FunctionDef):
                yield from ((node, top.name) for node in inside(function))  # type: ignore[attr-defined]


def called(sources: dict[str, str], entry: str) -> set[str]:
    """Return the functions and classes of sources that a function calls, by way of others and itself too."""
    bodies: dict[str, set[str]] = {}
    for source in sources.values():
        for top in ast.parse(source).body:
            if isinstance(top, ast.FunctionDef | ast.ClassDef):
                names = {n.id for n in ast.walk(top) if isinstance(n, ast.Name)}
                bodies[top.name] = bodies.get(top.name, set()) | names
    found, left = set(), [entry]
    while left:
        name = left.pop()
        if name in bodies and name not in found:
            found.add(name)
            left += bodies[name]
    return found


def mutants(file: str, source: str) -> list[Mutant]:
    """Return all mutants of a source, in the order of its lines."""
    tree = ast.parse(source)
    found: dict[tuple[int, int, str], Mutant] = {}
    for node, function in _editable(tree):
        edits = list(_edits(node)) if isinstance(node, ast.expr) else []
        if isinstance(node, ast.stmt):
            edits += _statements(node)
        for kind, new in edits:
            change = f"{ast.unparse(node)} -> {ast.unparse(ast.fix_missing_locations(new))}"
            line, column = node.lineno, node.col_offset  # type: ignore[attr-defined]
            found.setdefault((line, column, change), Mutant(file, line, kind, change, function, tree, node, new))
    return sorted(found.values(), key=lambda m: (m.line, m.kind, m.change))
