"""How figures look and become files: one palette that colour-blind readers can tell apart, no global state."""

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe & Ito (2008), without the yellow that paper swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*", "<", ">", "h")
LINES = ("-", "--", "-.", ":")
_LOOK: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.edgecolor": "#555555",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "svg.hashsalt": "cem",  # else ids in the file are random, and the same report differs byte for byte
    "text.parse_math": False,  # a class may be called $x$
}


@dataclass(frozen=True)
class Picture:
    """A finished figure: file name, bytes, and the words beside it."""

    name: str
    data: bytes
    caption: str

    @property
    def uri(self) -> str:
        """The figure inside an address, so that the page needs no file beside it."""
        media = "svg+xml" if self.name.endswith(".svg") else "png"
        return f"data:image/{media};base64,{base64.b64encode(self.data).decode('ascii')}"


@contextmanager
def look() -> Iterator[None]:
    """Draw in the report's look, and leave matplotlib's settings as they were."""
    with mpl.rc_context(_LOOK):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def finish(figure: Figure, name: str, form: Literal["svg", "png"], caption: str) -> Picture:
    """The figure as bytes that depend on nothing but what is drawn."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if form == "svg" else {"Software": None}
    figure.savefig(buffer, format=form, dpi=160, metadata=metadata)
    return Picture(f"{name}.{form}", buffer.getvalue(), caption)


def colour(index: int) -> str:
    """Colour of the group with this index."""
    return COLOURS[index % len(COLOURS)]


def line_style(index: int) -> str:
    """Line of the group with this index: changes when the colours start again."""
    return LINES[index // len(COLOURS) % len(LINES)]


def marker(index: int) -> str:
    """Marker of the group with this index."""
    return MARKERS[index % len(MARKERS)]


def empty(axes: Axes, reason: str) -> None:
    """Say why a panel shows nothing."""
    axes.text(0.5, 0.5, reason, ha="center", va="center", transform=axes.transAxes, color="#555555", wrap=True)
    axes.set_xticks([])
    axes.set_yticks([])
