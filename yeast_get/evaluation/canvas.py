"""What every picture shares: its size, colours and fonts, and how it is written.

Figures are objects of their own: pyplot and its global state stay untouched.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from yeast_get.data.blocks import ROWS
from yeast_get.run_dir import atomic

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

BLUE, ORANGE, GREEN, VERMILLION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY = "#CC79A7", "#56B4E9"
GREY = "#666666"
"""Colours of Okabe and Ito, which colour-blind readers can tell apart, and a grey."""

SIZE_INCHES = (1600 / 150, 1200 / 150)
DPI = 150
LONGEST_NAME = 32
CJK_FONTS = ("Noto Sans CJK SC", "Noto Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei")


def shorten(name: str, longest: int = LONGEST_NAME) -> str:
    """A name with … in its middle where it is longer than `longest` characters."""
    if len(name) <= longest:
        return name
    end = (longest - 1) // 3
    return f"{name[: longest - 1 - end]}…{name[-end:]}"


_BEGINS = "[=+@＝＋＠－\t\r\n-]"
_FORMULA, _NO_FORMULA = re.compile(f"'*{_BEGINS}"), re.compile(f"'+{_BEGINS}")
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[-+]?[0-9]+)?", re.IGNORECASE)


def as_cell(text: Any) -> Any:
    """A text as a CSV file holds it: behind an apostrophe where a spreadsheet would calculate it.

    Numbers, and texts that are numbers, stay as they are.
    """
    if not isinstance(text, str) or not _FORMULA.match(text) or _NUMBER.fullmatch(text):
        return text
    return f"'{text}"


def as_text(cell: Any) -> Any:
    """The text that `as_cell` wrote."""
    return cell[1:] if isinstance(cell, str) and _NO_FORMULA.match(cell) else cell


def read_columns(path: str | Path, columns: list[str], **options: Any) -> pd.DataFrame:
    """Some columns of one of our CSV files."""
    import pandas as pd

    return _with_texts(pd.read_csv(path, usecols=columns, **options))


def read_blocks(path: str | Path, columns: list[str], **options: Any) -> Iterator[pd.DataFrame]:
    """The same, some rows at a time."""
    import pandas as pd

    return map(_with_texts, pd.read_csv(path, usecols=columns, chunksize=ROWS, **options))


def _with_texts(table: pd.DataFrame) -> pd.DataFrame:
    import pandas as pd

    for name, kind in table.dtypes.items():
        if isinstance(kind, pd.CategoricalDtype):
            table[name] = table[name].cat.rename_categories(as_text)
        elif not pd.api.types.is_numeric_dtype(kind):
            table[name] = table[name].map(as_text)
    return table


def new_figure(dpi: int = DPI) -> Figure:
    """An empty figure of the usual size."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)  # inches
    figure = Figure(figsize=SIZE_INCHES, dpi=dpi, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def say(figure: Figure, png: str | Path, text: str) -> Figure:
    """A picture that says why there is nothing to see."""
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=18, parse_math=False)
    return write_figure(figure, png)


def part_name(part: str) -> str:
    """What a picture calls the rows that it shows."""
    return "all rows" if part == "all" else f"{shorten(part)} part"


def write_figure(figure: Figure, path: str | Path) -> Figure:
    """Save the figure atomically.

    The ending of the path says the format; a PDF holds no date.
    """
    _use_fonts(figure)
    png = Path(path)
    dated = {"CreationDate": None} if png.suffix == ".pdf" else None
    with atomic(png) as file, warnings.catch_warnings():
        # A name may hold characters that no installed font has: they are drawn as boxes.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from font")
        figure.savefig(file, format=png.suffix.removeprefix("."), metadata=dated)
    return figure


def draw(
    plot: Callable[..., Figure],
    source: Path,
    png: Path,
    formats: list[Literal["png", "pdf"]],
    *more: Any,
) -> None:
    """Draw a picture of a file, in every format; a failure is a warning, and leaves no picture.

    Args:
        plot: Called with the file, the picture's path and `more`; writes the PNG.
        source: The file.
        png: The picture.
        formats: Of the picture; a PNG there is always.
        *more: What else `plot` takes.
    """
    pictures = {each: png.with_suffix(f".{each}") for each in ("png", *formats)}
    try:
        for path in pictures.values():
            path.unlink(missing_ok=True)  # no picture is better than an old one beside a new table
        figure = plot(source, png, *more)
        for path in list(pictures.values())[1:]:
            write_figure(figure, path)
    except Exception as error:
        log.warning("warning: %s: no picture could be made (%s: %s)", png,
                    type(error).__name__, error)  # fmt: skip
        log.debug("the way there", exc_info=True)


def _use_fonts(figure: Figure) -> None:
    """Let every text fall back to an installed font with Chinese characters, if there is one."""
    from matplotlib.font_manager import fontManager
    from matplotlib.text import Text

    installed = set(fontManager.get_font_names())
    fallback = [font for font in CJK_FONTS if font in installed]
    if fallback:
        for text in figure.findobj(Text):
            text.set_fontfamily(["DejaVu Sans", *fallback])


def padded_limits(values: np.ndarray) -> tuple[float, float]:
    """The range of the values, and a little more."""
    low, high = float(values.min()), float(values.max())
    margin = 0.04 * (high - low) or 0.5 * max(abs(low), 1.0)
    return low - margin, high + margin


def corner_box(axes: Axes, text: str) -> None:
    """A text in the upper left corner."""
    box = {"facecolor": "white", "edgecolor": GREY, "alpha": 0.85, "boxstyle": "round"}
    axes.text(0.02, 0.98, text, transform=axes.transAxes, ha="left", va="top", bbox=box, zorder=5)
