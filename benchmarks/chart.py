"""Horizontal bars in groups, as SVG of our own: a picture that needs no library and reads well in a diff."""

from __future__ import annotations

from html import escape
from typing import NamedTuple

WIDTH, LEFT, RIGHT = 860, 150, 230  # of the picture; left of the bars, for names; right of them, for numbers
BAR, GAP, TITLE, BETWEEN = 16, 6, 24, 20  # heights: a bar, between two, a group's title, between two groups
CHARACTERS = 112  # of a title in a line
COLORS = ("#1f6feb", "#8c959f")  # the first bar of a group, the others


class Bar(NamedTuple):
    name: str
    value: float
    low: float
    high: float


def bars(groups: list[tuple[str, list[Bar]]]) -> str:
    """A picture of groups (title, bars), each with its own scale, and of how many times the others the first is."""
    shapes, y = [], 14
    for title, group in groups:
        scale = (WIDTH - LEFT - RIGHT) / max(bar.high for bar in group)
        for line in _lines(title):
            shapes.append(_text(10, y + 12, line, "title"))
            y += TITLE - 6
        y += 6
        for i, bar in enumerate(group):
            shapes += _bar(bar, y, scale, COLORS[i > 0], f", thorndike {group[0].value / bar.value:.1f}x" if i else "")
            y += BAR + GAP
        y += BETWEEN
    return PICTURE.format(width=WIDTH, height=y, shapes="\n".join(shapes))


def _bar(bar: Bar, y: float, scale: float, color: str, beside: str) -> list[str]:
    """Name, bar, a line from the lowest to the highest, number."""
    middle, low, high = y + BAR / 2, LEFT + scale * bar.low, LEFT + scale * bar.high
    return [
        _text(LEFT - 8, y + 12, bar.name, "name"),
        f'<rect x="{LEFT}" y="{y}" width="{scale * bar.value:.1f}" height="{BAR}" rx="2" fill="{color}"/>',
        f'<path d="M{low:.1f} {middle}H{high:.1f}M{low:.1f} {middle - 4}v8M{high:.1f} {middle - 4}v8"/>',
        _text(high + 8, y + 12, f"{bar.value:,.0f} steps/s{beside}", "number"),
    ]


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{escape(text)}</text>'


def _lines(text: str) -> list[str]:
    """Words in lines of at most CHARACTERS."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= CHARACTERS:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


PICTURE = """<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">
<style>
text {{ font: 12px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328 }}
.title {{ font-weight: 600 }} .name {{ text-anchor: end }} .number {{ fill: #59636e }}
path {{ stroke: #1f2328; fill: none }}
</style>
<rect width="{width}" height="{height}" fill="#ffffff"/>
{shapes}
</svg>
"""
