"""The cost curve of a layer as an SVG element: both axes logarithmic, author's order and cheapest plan."""

from __future__ import annotations

from math import ceil, floor, log10

from polyattn.study.atlas.costs import Costs

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 440, 230, 54, 30, 12


def curve(costs: Costs) -> str:
    """Return multiply-accumulates against the varied size as SVG."""
    first, last = costs.points[0][0], costs.points[-1][0]
    values = [v for _, *macs in costs.points for v in macs if v > 0]
    if not values:
        return ""
    low, high = floor(log10(min(values))), max(ceil(log10(max(values))), floor(log10(min(values))) + 1)

    def x(length: int) -> float:
        return LEFT + (WIDTH - LEFT - 12) * log10(length / first) / log10(last / first)

    def y(macs: int) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (log10(max(macs, 1)) - low) / (high - low)

    def line(column: int) -> str:
        return " ".join(f"{x(p[0]):.1f},{y(p[column]):.1f}" for p in costs.points)

    step = max(1, (high - low) // 4)
    label = f"Multiply-accumulates against {costs.axis}, in the author's order and by the cheapest plan"
    parts = [f'<svg class="cost" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">']
    for power in range(low, high + 1, step):
        at = y(10**power)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - 12}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">10^{power}</text>')
    for length, *_ in costs.points[::3]:
        anchor = "end" if length == last else "middle"
        parts.append(
            f'<text class="tick" x="{x(length):.1f}" y="{HEIGHT - 10}" text-anchor="{anchor}">{length:,}</text>'
        )
    parts.append(
        f'<polyline class="curve s1" points="{line(1)}"/><polyline class="curve s0" points="{line(2)}"/></svg>'
    )
    return "".join(parts)
