"""One theme, and the way from a drawing to an SVG, a PNG and inline markup.

Figures are made without pyplot, so nothing global is opened or has to be closed. Text stays
text in the SVG; users' names never reach the mathematics parser. Everything is deterministic:
no date, no version, salted identifiers.
"""

from __future__ import annotations

import io
import re
import textwrap
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from xml.etree import ElementTree

import matplotlib
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import Formatter, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from orchestrator.report.wording import compact, plain

# Okabe and Ito's palette (as seaborn's "colorblind" carries it), one meaning each.
BEST: Final = "#0173b2"
DEFAULT: Final = "#c05000"
ACCENT: Final = "#029e73"
BAD: Final = "#b2182b"
TRIAL: Final = "#56789a"
MUTED: Final = "#8a8f98"
INK: Final = "#1f2430"
FAINT: Final = "#e3e6eb"

WIDTH_INCHES: Final = 5.6
HEIGHT_INCHES: Final = 3.7
PNG_DPI: Final = 170
_POINTS: Final = 72.0
_TITLE_MAX: Final = 100
_WIDE: Final = 20.0
"""A ratio of largest to smallest above which an axis turns logarithmic."""

_STYLE: Final = {
    "font.family": ["sans-serif"],
    # The one font that matplotlib brings along: the same layout on every machine.
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Helvetica", "Arial", "sans-serif"],
    "font.size": 9.0,
    "axes.labelsize": 9.0,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "axes.edgecolor": "#9aa0aa",
    "axes.labelcolor": "#4a4f59",
    "xtick.color": "#9aa0aa",
    "ytick.color": "#9aa0aa",
    "xtick.labelcolor": "#4a4f59",
    "ytick.labelcolor": "#4a4f59",
    "text.color": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#eceef2",
    "grid.linewidth": 0.8,
    "axes.linewidth": 0.8,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "xtick.major.size": 3.0,
    "ytick.major.size": 3.0,
    "xtick.minor.size": 0.0,
    "ytick.minor.size": 0.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "svg.fonttype": "none",
    "path.simplify": True,
}


@dataclass(frozen=True)
class Picture:
    """A finished figure.

    ``name`` is its file name without an ending; ``svg`` a whole SVG document; ``empty`` says
    that there was nothing to draw and the picture only tells so.
    """

    name: str
    title: str
    caption: str
    svg: str
    png: bytes
    empty: bool = False


@contextmanager
def _theme() -> Iterator[None]:
    style: Any = {
        **seaborn.plotting_context("paper"),
        **seaborn.axes_style("ticks"),
        **_STYLE,
    }
    with matplotlib.rc_context(style), warnings.catch_warnings():
        # Names in scripts that the bundled font lacks: boxes in the PNG, right in the SVG.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        yield


def picture(
    name: str,
    title: str,
    subtitle: str,
    caption: str,
    draw: Callable[[Figure], None],
    *,
    mark: str = "",
    height_inches: float = HEIGHT_INCHES,
) -> Picture:
    """Draw one figure under the common theme, with its title and subtitle above the axes.

    ``mark`` ends the title and is never cut off, however long the title is.
    """
    title = plain(title, _TITLE_MAX) + mark
    with _theme():
        figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
        header = _header(figure, title, subtitle, height_inches)
        engine = figure.get_layout_engine()
        assert isinstance(engine, ConstrainedLayoutEngine)
        engine.set(rect=(0.0, 0.0, 1.0, 1.0 - header), w_pad=0.06, h_pad=0.05)
        draw(figure)
        if figure.axes:
            engine.execute(figure)
        figure.set_layout_engine("none")  # Laid out once, for both formats alike.
        return Picture(name, title, plain(caption), _svg(figure, name), _png(figure))


def empty_picture(name: str, title: str, message: str) -> Picture:
    """A figure that says why there is none."""

    def draw(figure: Figure) -> None:
        text = "\n".join(textwrap.wrap(plain(message), 60))
        figure.text(0.5, 0.4, text, ha="center", va="center", color=MUTED, linespacing=1.5)

    drawn = picture(name, title, "", message, draw, height_inches=1.6)
    return Picture(drawn.name, drawn.title, drawn.caption, drawn.svg, drawn.png, empty=True)


def _header(figure: Figure, title: str, subtitle: str, height_inches: float) -> float:
    """Write the two texts at the top left; returns the share of the height they take."""
    height = height_inches * _POINTS
    top = 7.0
    for text, size, width, weight, color in (
        (title, 10.5, 58, "bold", INK),
        (subtitle, 8.5, 90, "normal", "#5b616c"),
    ):
        for line in textwrap.wrap(plain(text, 3 * width), width):
            figure.text(
                8.0 / (WIDTH_INCHES * _POINTS),
                1.0 - top / height,
                line,
                fontsize=size,
                fontweight=weight,
                color=color,
                ha="left",
                va="top",
            )
            top += size * 1.35
        top += 1.5
    return (top + 2.0) / height


def _svg(figure: Figure, name: str) -> str:
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": f"archbench/{name}"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=PNG_DPI, metadata={"Software": None})
    return buffer.getvalue()


_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_UNUSED = ("metadata", "style", "title", "desc")


def inline_svg(drawn: Picture) -> str:
    """The figure as markup for an HTML page.

    Identifiers carry the figure's name, so that figures of one page never share one. Nothing
    is left that reaches outside: no namespaces, metadata or style sheet of its own.
    """
    root = ElementTree.fromstring(drawn.svg)
    prefix = f"{drawn.name}-"
    for parent in list(root.iter()):
        for child in [item for item in parent if _local(item.tag) in _UNUSED]:
            parent.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        element.attrib = {
            _local(key): _prefixed(_local(key), value, prefix)
            for key, value in element.attrib.items()
        }
        if element.tag != "text" and element.text and not element.text.strip():
            element.text = None
        if element.tail and not element.tail.strip():
            element.tail = "\n"
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.attrib["role"] = "img"
    root.attrib["aria-label"] = drawn.title
    return ElementTree.tostring(root, encoding="unicode").strip()


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _prefixed(key: str, value: str, prefix: str) -> str:
    if key == "id":
        return prefix + value
    if key == "href" and value.startswith("#"):
        return "#" + prefix + value[1:]
    return _REFERENCE.sub(rf"url(#{prefix}\1)", value)


# What the drawings have in common.


def choose_log(values: Sequence[float]) -> bool:
    """Whether an axis over these values reads better logarithmically."""
    positive = [value for value in values if value > 0]
    return len(positive) == len(values) > 0 and max(positive) / min(positive) > _WIDE


def number_axis(axes: Axes, which: str, *, log: bool = False) -> None:
    """Ticks without mathematics: ``18.2k``, logarithmic where asked."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    if log:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
        decades = high / low if low > 0 else 1.0
        subs = (1.0, 2.0, 5.0) if decades < 300 else (1.0,)
        axis.set_major_locator(LogLocator(subs=subs))
        axis.set_minor_formatter(NullFormatter())
    else:
        axis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(_Compact())


class _Compact(Formatter):
    """``18.2k``, with as many digits as it takes to tell the ticks of an axis apart."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return compact(x)

    def format_ticks(self, values: Sequence[float]) -> list[str]:
        for digits in range(3, 12):
            texts = [compact(value, digits) for value in values]
            if len(set(texts)) == len(texts):
                return texts
        return [compact(value) for value in values]


def whole_number_axis(axes: Axes) -> None:
    """An x axis of counts."""
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))


def label_right(axes: Axes, labels: Sequence[tuple[float, str, str]]) -> None:
    """Texts (value, text, colour) beside the right end of the axes, moved apart if they touch.

    Call it when limits and scales are final.
    """
    if not labels:
        return
    transform = axes.transData + axes.transAxes.inverted()
    x = axes.get_xlim()[1]
    places = [float(transform.transform((x, value))[1]) for value, _, _ in labels]
    box = axes.get_subplotspec()
    rows = box.get_gridspec().nrows if box is not None else 1
    figure = axes.get_figure()
    inches = figure.get_figheight() if isinstance(figure, Figure) else HEIGHT_INCHES
    gap = 12.0 / (0.62 * inches * _POINTS / rows)
    order = sorted(range(len(labels)), key=lambda index: (places[index], index))
    bottom = min(1.0 - gap * (len(order) - 1), max(0.02, places[order[0]]))
    heights: dict[int, float] = {}
    for index in order:
        bottom = min(0.98, max(bottom, places[index]))
        heights[index] = bottom
        bottom += gap
    ceiling = 0.98
    for index in reversed(order):
        heights[index] = min(heights[index], ceiling)
        ceiling = heights[index] - gap
    for index, (_, text, color) in enumerate(labels):
        axes.annotate(
            plain(text, 30),
            xy=(1.0, heights[index]),
            xycoords="axes fraction",
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            ha="left",
            color=color,
            fontsize=8.5,
            annotation_clip=False,
        )


def label_point(
    axes: Axes,
    place: tuple[float, float],
    text: str,
    color: str,
    avoid: Sequence[tuple[float, float]],
) -> None:
    """A text beside a marked point, at the corner where it covers the fewest of ``avoid``.

    Call it when limits and scales are final.
    """
    text = plain(text, 40)
    to_axes = axes.transData + axes.transAxes.inverted()
    x, y = (float(part) for part in to_axes.transform(place))
    others = [tuple(map(float, to_axes.transform(point))) for point in avoid]
    # The drawn size is known only after layout; these shares are near enough to choose by.
    width, height, away = 0.0175 * len(text) + 0.01, 0.085, 0.022

    def cost(corner: tuple[int, int]) -> float:
        left = x + away if corner[0] > 0 else x - away - width
        low = y + away if corner[1] > 0 else y - away - height
        outside = left < 0 or left + width > 1.0 or low < 0 or low + height > 1.0
        covered = sum(
            left - 0.015 <= a <= left + width + 0.015 and low - 0.03 <= b <= low + height + 0.03
            for a, b in others
        )
        return covered + (100 if outside else 0)

    right, up = min(((1, 1), (1, -1), (-1, 1), (-1, -1)), key=cost)
    axes.annotate(
        text,
        xy=place,
        xytext=(7 * right, 6 * up),
        textcoords="offset points",
        ha="left" if right > 0 else "right",
        va="bottom" if up > 0 else "top",
        color=color,
        fontsize=8.5,
        fontweight="bold",
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5},
        zorder=8,
    )
