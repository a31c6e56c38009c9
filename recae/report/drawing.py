"""How the pages' pictures are drawn: the paint, a style a series, and matplotlib's SVG made part of a page.

No picture holds a word that came from the data: names stand in the page's own legends, where they wrap, are escaped
and find their glyphs. Each colour of a picture is one of PAINT's, and becomes a variable of the page's style sheet,
so that the pictures follow the reader's light or dark theme.
"""

import io
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.markers import MarkerStyle
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from numpy.typing import NDArray

PAINT: Mapping[str, tuple[str, str]] = {
    "paper": ("#fdfcf9", "#171614"),
    "ink": ("#211f1c", "#ece9e2"),
    "muted": ("#6a655d", "#a39d92"),
    "grid": ("#e4e0d8", "#33302b"),
    "series-0": ("#212b74", "#d3b5ff"),
    "series-1": ("#dd7900", "#d46811"),
    "series-2": ("#00605e", "#80e586"),
    "series-3": ("#bf7cb9", "#fbd400"),
    "series-4": ("#9a3e05", "#056cca"),
    "series-5": ("#0a90f8", "#d8f6ed"),
    "series-6": ("#5c180f", "#9b5842"),
    "series-7": ("#889064", "#726f89"),
    "step-0": ("#5f97c6", "#3b6fa8"),
    "step-1": ("#3b76b0", "#5c9bd6"),
    "step-2": ("#22528a", "#92c4ee"),
    "step-3": ("#0f2f59", "#d3e9fb"),
}
"""Every colour of the page and its pictures: on light, on dark.

The series were searched for to stay far apart for normal, red-, green- and blue-blind eyes alike.
"""

SERIES = 8
DASHES = ("", "6 2.5", "2 2", "8 2 2 2")
MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
WIDTH = 460

ROOM = 0.04
"""Which part of what is drawn is left free on either side of it, for marks that stand at the ends."""

CROWD = 0.1
"""How far ticks stand apart at least, as a part of the axis."""

BASE: Mapping[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 12,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": PAINT["muted"][0],
    "axes.labelcolor": PAINT["muted"][0],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.xmargin": 0.02,
    "grid.color": PAINT["grid"][0],
    "grid.linewidth": 0.8,
    "text.color": PAINT["ink"][0],
    "xtick.color": PAINT["muted"][0],
    "ytick.color": PAINT["muted"][0],
    "ytick.major.size": 0,
    "lines.solid_capstyle": "round",
    "lines.linewidth": 1.8,
    "lines.scale_dashes": False,
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
}


@dataclass(frozen=True)
class Style:
    """How one series is drawn: the same colour, dashes and mark in every picture and legend."""

    paint: str
    dash: str
    mark: str

    @classmethod
    def of(cls, number: int) -> "Style":
        """Return the style of the series with this number; colours repeat after eight, with other dashes."""
        return cls(f"series-{number % SERIES}", DASHES[number // SERIES % len(DASHES)], MARKS[number % SERIES])

    @property
    def colour(self) -> str:
        """The colour to draw with; it becomes a variable."""
        return PAINT[self.paint][0]

    @property
    def outline(self) -> str:
        """The mark as an SVG path around the origin, five units to each side, for a legend."""
        marker = MarkerStyle(self.mark)
        path = marker.get_path().transformed(marker.get_transform())
        corners: NDArray[np.float64] = np.asarray(path.to_polygons()[0]) * [10, -10]
        return "M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in corners) + "Z"

    @property
    def line(self) -> str | tuple[float, tuple[float, ...]]:
        """The dashes, as matplotlib wants them."""
        return (0.0, tuple(float(part) for part in self.dash.split())) if self.dash else "-"


def ratio_axis(axes: Axes, end: float, label: str) -> None:
    """Let the x axis run from 1 to `end` in even ratios, with round numbers at the ticks."""
    ticks = [step * 10**power for power in range(len(str(int(end)))) for step in (1, 2, 5)]
    if end > 200:
        ticks = [tick for tick in ticks if str(tick).startswith("1")]
    axes.set_xscale("log")
    axes.set_xlim(1 if end > 1 else 0.5, max(end, 2))
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if tick <= end]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:,.0f}"))
    axes.set_xlabel(label)


def ratio_axis_around(axes: Axes, low: int, high: int, label: str) -> None:
    """Let the x axis run over whole numbers in even ratios, with room for the marks at both ends, which get a tick.

    The numbers in between are round ones, as far as they do not crowd.
    """
    ends = np.log([low, high]) + np.array([-1, 1]) * max(ROOM * np.log(high / low), np.log(1.1))
    axes.set_xscale("log")
    axes.set_xlim(*np.exp(ends))
    axes.xaxis.set_major_locator(FixedLocator(ratio_ticks(low, high, CROWD * (ends[1] - ends[0]))))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:,.0f}"))
    axes.set_xlabel(label)


def ratio_ticks(low: float, high: float, apart: float) -> list[float]:
    """Return ticks of an axis in even ratios: both ends, and round numbers whose logarithms lie that far apart."""
    powers = [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    ticks = [low] if low == high else [low, high]
    for tick in [first * power for first in (1, 5, 2, 3, 4, 7) for power in powers]:
        if low < tick < high and min(abs(np.log(tick / other)) for other in ticks) > apart:
            ticks.append(tick)
    return ticks


def picture(name: str, draw: Callable[[Figure], None], alt: str, *, height: int = 300, width: int = WIDTH) -> Markup:
    """Draw on a figure width × height and return it as SVG to stand inside a page, the same bytes every time."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(BASE)
        mpl.rcParams["svg.hashsalt"] = name
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        draw(figure)
        file = io.StringIO()
        figure.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _inline(file.getvalue(), alt)


def _inline(svg: str, alt: str) -> Markup:
    """Make matplotlib's SVG document part of a page: no prologue, no idle ids, short numbers, the page's colours."""
    body = svg[svg.index("<g id=") :]
    box = re.search(r'viewBox="([^"]*)"', svg)
    size = box[1] if box else ""
    variables = {light: f"var(--{name})" for name, (light, _) in PAINT.items()}
    wanted = set(re.findall(r"#([\w.-]+)[\")]", body))
    body = re.sub(r"(?<=: )#[0-9a-f]{6}\b", lambda colour: variables[colour[0]], body)
    body = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in wanted else "", body)
    body = re.sub(r"(\d\.\d\d)\d+(?![^<>]*</)", r"\1", body)  # of coordinates, not of what is written
    body = re.sub(r' transform="rotate\(-0 [^"]*"| font-family: [^;]*;', "", body)
    body = re.sub(r"\s*\n\s*", "\n", body).replace("xlink:href", "href")
    return Markup(f'<svg role="img" viewBox="{size}" aria-label="{escape(alt)}">\n{body}')
