"""RTFx of every system in every cell, as one SVG: a row a cell, a dot a system, a line from its slowest round to its
fastest. The scale is logarithmic."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from statistics import median
from typing import Any

from benchmarks.report import cell_name

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#555555", "#e69f00")
_LEFT, _WIDTH, _RIGHT, _ROW, _TOP = 400, 520, 60, 26, 60


def draw(comparisons: Mapping[str, Mapping[str, Any]]) -> str:
    """An SVG document of the runs of all backbones; an empty one where there are none."""
    runs = [run for found in comparisons.values() for run in found["runs"]]
    systems = list(dict.fromkeys(run["system"] for run in runs))
    rows = list(dict.fromkeys(_row_name(run) for run in runs))
    speeds = [run["timing"]["rtfx"] for run in runs] or [1.0]
    low, high = math.floor(math.log10(min(speeds))), math.ceil(math.log10(max(speeds)) + 1e-9)
    height = _TOP + _ROW * len(rows) + 40

    def x(speed: float) -> float:
        return _LEFT + _WIDTH * (math.log10(speed) - low) / max(1, high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDTH + _RIGHT}" height="{height}"'
        ' font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, system in enumerate(systems):
        left = 20 + number * 150
        parts.append(f'<circle cx="{left}" cy="20" r="5" fill="{_colour(number)}"/>')
        parts.append(f'<text x="{left + 10}" y="24">{escape(system)}</text>')
    for power in range(low, high + 1):
        at = x(10.0**power)
        parts.append(f'<line x1="{at:.1f}" y1="{_TOP - 14}" x2="{at:.1f}" y2="{height - 34}" stroke="#ddd"/>')
        parts.append(f'<text x="{at:.1f}" y="{height - 16}" text-anchor="middle">{10.0**power:g}</text>')
    parts.append(
        f'<text x="{_LEFT + _WIDTH / 2}" y="{height - 2}" text-anchor="middle">seconds of audio a second</text>'
    )
    for row, name in enumerate(rows):
        y = _TOP + _ROW * row
        parts.append(f'<text x="{_LEFT - 12}" y="{y + 4}" text-anchor="end">{escape(name)}</text>')
        for number, system in enumerate(systems):
            some = [run["timing"]["rtfx"] for run in runs if run["system"] == system and _row_name(run) == name]
            if some:
                colour, least, most = _colour(number), x(min(some)), x(max(some))
                parts.append(f'<line x1="{least:.1f}" y1="{y}" x2="{most:.1f}" y2="{y}" stroke="{colour}"/>')
                parts.append(f'<circle cx="{x(median(some)):.1f}" cy="{y}" r="4" fill="{colour}" fill-opacity="0.8"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _row_name(run: Mapping[str, Any]) -> str:
    return f"{run['backbone']}: {cell_name(run['cell'])}"


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]
