"""A specification as a picture of its definitions: what is computed from what, from left to right, as SVG."""

from __future__ import annotations

from html import escape

from polyattn import Spec
from polyattn.language.syntax import Call, accesses, walk

LETTER, LINE, PAD = 6.7, 15, 6
"""Width of a letter of 11 pixels, height of a line and margin of a box, in pixels."""
APART, BETWEEN, LANE = 12, 24, 10
"""Pixels between boxes of a column, between columns, and for an edge that passes a column."""

Node = tuple[str, str, int]
"""A tensor, the end of an edge that passes ("" for a box), and the column."""

HEAD = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}"'
    ' height="{height:.0f}" role="img"><title>{title}</title><style>text{{font:11px ui-monospace,Menlo,Consolas,'
    "monospace;fill:#1b1b1b}}.n{{font-weight:bold}}.i{{fill:#fff}}.q{{fill:#555}}rect{{fill:#eee;stroke:#1b1b1b}}"
    ".s{{fill:#1b1b1b}}.y{{fill:#cfe6f5}}path{{fill:none;stroke:#0072b2;stroke-width:1.5}}</style>"
)


def flow(spec: Spec, title: str) -> str:
    """Return the picture: inputs dark on the left, a box for each definition with its functions and parameters."""
    texts = {name: [f"{name}[{','.join(shape)}]"] for name, shape in spec.inputs.items()}
    sources: dict[str, list[str]] = {name: [] for name in texts}
    for definition in spec.statements.definitions:
        name, read = definition.name, [a.tensor for a in accesses(definition.body)]
        # The root of a size is a number.
        calls = [c for c in walk(definition.body) if isinstance(c, Call) and any(accesses(c))]
        weights = _wrapped([t for t in read if t in spec.parameters])
        texts[name] = [str(definition.target), *dict.fromkeys(map(_function, calls)), *weights]
        sources[name] = [t for t in dict.fromkeys(read) if t in sources]
    return _drawn(title, texts, sources, set(spec.inputs), spec.output)


def _function(call: Call) -> str:
    return f"{call.function}[{','.join(call.over)}]" if call.over else call.function


def _wrapped(names: list[str]) -> list[str]:
    """Return names, each once, in lines of two."""
    every = list(dict.fromkeys(names))
    return [" ".join(every[k : k + 2]) for k in range(0, len(every), 2)]


def _drawn(
    title: str, texts: dict[str, list[str]], sources: dict[str, list[str]], inputs: set[str], output: str
) -> str:
    depth: dict[str, int] = {}
    for name in texts:  # definitions come after what they read
        depth[name] = max((depth[s] + 1 for s in sources[name]), default=0)
    # An edge over several columns has a lane of its own in each of them, so that it never runs over a box.
    columns: list[list[Node]] = [[] for _ in range(max(depth.values()) + 1)]
    for name in texts:
        columns[depth[name]].append((name, "", depth[name]))
    before: dict[Node, list[Node]] = {(name, "", depth[name]): [] for name in texts}
    for name, read in sources.items():
        for source in read:
            last = (source, "", depth[source])
            for k in range(depth[source] + 1, depth[name]):
                columns[k].append((source, name, k))
                before[source, name, k] = [last]
                last = (source, name, k)
            before[name, "", depth[name]].append(last)
    sizes = {(n, "", depth[n]): (max(map(len, t)) * LETTER + 2 * PAD, len(t) * LINE + PAD) for n, t in texts.items()}
    widths = [max(sizes.get(node, (0, 0))[0] for node in column) for column in columns]
    tall = [sum(sizes.get(n, (0, LANE))[1] for n in c) + APART * (len(c) - 1) for c in columns]
    height, width = max(tall) + 2 * PAD, sum(widths) + BETWEEN * (len(columns) - 1) + 2 * PAD
    middle: dict[Node, float] = {}
    boxes: dict[Node, tuple[float, float, float, float]] = {}
    left = float(PAD)
    for column, wide, high in zip(columns, widths, tall, strict=True):
        column.sort(key=lambda node: sum(middle[b] for b in before[node]) / max(1, len(before[node])))
        top = (height - high) / 2
        for node in column:
            w, h = sizes.get(node, (wide, LANE))
            boxes[node] = (left + (wide - w) / 2, top, w, h)
            middle[node] = top + h / 2
            top += h + APART
        left += wide + BETWEEN
    parts = [HEAD.format(width=width, height=height, title=escape(title))]
    for node, read in before.items():
        for other in read:
            x, y = boxes[other][0] + boxes[other][2], middle[other]
            u, v = boxes[node][0], middle[node]
            bend = (u - x) / 2
            parts.append(f'<path d="M{x:.0f} {y:.0f}C{x + bend:.0f} {y:.0f} {u - bend:.0f} {v:.0f} {u:.0f} {v:.0f}"/>')
        if node[1]:
            x, _, w, _ = boxes[node]
            parts.append(f'<path d="M{x:.0f} {middle[node]:.0f}h{w:.0f}"/>')
    for (name, end, _), (x, y, w, h) in boxes.items():
        if end:
            continue
        look = ' class="s"' if name in inputs else ' class="y"' if name == output else ""
        parts.append(f'<rect{look} x="{x:.0f}" y="{y:.0f}" width="{w:.0f}" height="{h:.0f}" rx="4"/>')
        for k, line in enumerate(texts[name]):
            ink = ("n i" if name in inputs else "n") if k == 0 else "q"
            parts.append(
                f'<text class="{ink}" x="{x + PAD:.0f}" y="{y + LINE * (k + 1) - 1:.0f}">{escape(line)}</text>'
            )
    return "".join(parts) + "</svg>\n"
