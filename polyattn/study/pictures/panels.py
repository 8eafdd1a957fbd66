"""A specification's products as networks: tensors, dots and free ends as vertices, indices as edges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from polyattn.algebra import Spec
from polyattn.errors import BudgetError
from polyattn.language.syntax import IDENTITY, Access, Bracket, Call, Definition, Number, SizeRef, Sum, Term

MOST_PANELS = 24


@dataclass(frozen=True)
class Vertex:
    """A tensor, a dot at which an index branches, or the loose end of a free index.

    Attributes:
        kind: "input", "parameter", "value" (a function's result, an intermediate), "dot" or "free".
        label: the tensor's name; the index of a free end.
    """

    kind: str
    label: str = ""


@dataclass(frozen=True)
class Edge:
    """An index between two vertices, or several in parallel.

    Attributes:
        ends: positions of the vertices.
        index: its letter; empty for the further edges of a dot.
        size: the name of its size.
    """

    ends: tuple[int, int]
    index: str
    size: str


@dataclass(frozen=True)
class Panel:
    """One product as a network.

    Attributes:
        title: its definition, its sign, its coefficient and its scalar parameters.
    """

    title: str
    vertices: tuple[Vertex, ...]
    edges: tuple[Edge, ...]


def panels(spec: Spec) -> tuple[Panel, ...]:
    """Return a panel for each product, with brackets multiplied out and intermediates substituted.

    A text that is one such sum already keeps the author's letters. A function is a tensor of its own, and each product
    of its argument a panel. Intermediates stay where the expansion has more products than the text.

    Raises:
        BudgetError: more than 24 products, or the expansion is too large.
    """
    written = spec.core
    brackets = any(map(_brackets, written))
    flat = len(written) == 1 and not isinstance(written[0].body, Call) and not brackets
    shown = spec if flat else _expanded(spec, None if brackets else _count(written))
    definitions = shown.core
    if _count(definitions) > MOST_PANELS:
        raise BudgetError(f"there are {_count(definitions)} products, and a picture has room for {MOST_PANELS} panels")
    last = len(definitions) - 1
    return tuple(
        _panel(shown, number, definition, term, position)
        # The output's definition comes first, those of functions' arguments after it; the author's order as written.
        for number, definition in sorted(enumerate(definitions), key=lambda d: shown is not spec and d[0] != last)
        for position, term in enumerate(_sum(definition).terms)
    )


def _expanded(spec: Spec, written: int | None) -> Spec:
    """Return the expansion; the text itself if the expansion has more products, or is too large to be made."""
    try:
        expanded = spec.expanded()
    except BudgetError:
        if written is None:
            raise
        return spec
    return spec if written is not None and written < _count(expanded.core) else expanded


def _count(definitions: Sequence[Definition]) -> int:
    return sum(len(_sum(d).terms) for d in definitions)


def _sum(definition: Definition) -> Sum:
    return definition.body.argument if isinstance(definition.body, Call) else definition.body


def _brackets(definition: Definition) -> bool:
    return any(isinstance(f, Bracket) for term in _sum(definition).terms for f in term.factors)


def _panel(spec: Spec, number: int, definition: Definition, term: Term, position: int) -> Panel:
    sizes = {i: spec.sizes.name(atoms) for i, atoms in spec.resolved.index_sizes[number].items()}
    made = _Network(sizes, spec)
    for factor in term.factors:
        if isinstance(factor, Access) and factor.indices:
            made.access(factor)
    over = definition.body.over if isinstance(definition.body, Call) else ()
    made.join(tuple(dict.fromkeys((*definition.target.indices, *over))))
    return Panel(_title(spec, definition, term, position), tuple(made.vertices), tuple(made.edges))


def _title(spec: Spec, definition: Definition, term: Term, position: int) -> str:
    scale = ""
    for factor, divide in zip(term.factors, term.divides, strict=True):
        text = ""
        if isinstance(factor, Number | SizeRef):
            text = str(factor) if isinstance(factor, Number) else factor.size
        elif isinstance(factor, Access) and not factor.indices:
            text = factor.tensor
        # A scalar has no index, so it goes into the title.
        if text:
            scale = (scale or ("1" if divide else "")) + (("/" if divide else "·" if scale else "") + text)
    sign = "− " if term.negative else "+ " if position else ""
    if isinstance(definition.body, Call):
        over = f"[{','.join(definition.body.over)}]" if definition.body.over else ""
        head = f"{definition.name} = {definition.body.function}{over} of " if not position else ""
    else:
        head = f"{definition.name} = " if not position else ""
    return f"{head}{sign}{scale + ' ×' if scale and scale != '1' else ''}".strip()


@dataclass
class _Network:
    sizes: Mapping[str, str]
    spec: Spec
    vertices: list[Vertex] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    ends: dict[str, list[int]] = field(default_factory=dict)

    def add(self, kind: str, label: str = "") -> int:
        self.vertices.append(Vertex(kind, label))
        return len(self.vertices) - 1

    def access(self, access: Access) -> None:
        if access.tensor == IDENTITY:
            # An identity is a line between two indices, not a tensor: both meet in a dot.
            half = len(access.indices) // 2
            for pair in zip(access.indices[:half], access.indices[half:], strict=True):
                dot = self.add("dot")
                for index in pair:
                    self.ends.setdefault(index, []).append(dot)
            return
        known = {"input": self.spec.inputs, "parameter": self.spec.parameters}
        kind = next((k for k, names in known.items() if access.tensor in names), "value")
        vertex = self.add(kind, access.tensor)
        for index in access.indices:
            self.ends.setdefault(index, []).append(vertex)

    def join(self, free: tuple[str, ...]) -> None:
        """Add the edges: two ends are joined directly; one end, several, or twice the same meet in a dot."""
        for index in dict.fromkeys((*self.ends, *free)):
            ends = list(self.ends.get(index, ()))
            # A free index has one end outside all tensors.
            if index in free:
                ends.append(self.add("free", index))
            size = self.sizes.get(index, "")
            if len(ends) == 2 and ends[0] != ends[1]:
                self.edges.append(Edge((ends[0], ends[1]), index, size))
                continue
            dot = self.add("dot")
            for k, end in enumerate(ends):
                # Only the first edge of a dot is labelled.
                self.edges.append(Edge((end, dot), "" if k else index, size))
