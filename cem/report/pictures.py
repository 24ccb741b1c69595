"""How figures look and become files: one palette that colour-blind readers can tell apart, no global state."""

import base64
import colorsys
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe & Ito (2008), without the yellow that paper swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
PLAIN = COLOURS[-1]  # of noise alone, where methods have the other colours
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*", "<", ">", "h")
LINES = ("-", "--", "-.", ":")
# Colours of a picture → those of the page, which differ by day and night.
_THEMED = {"#ffffff": "paper", "#555555": "soft", "#e4e4e4": "line", "#000000": "ink"}
_THEMED |= {one.lower(): f"c{place}" for place, one in enumerate(COLOURS[:-1])}
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
    "svg.fonttype": "none",  # text stays text: it can be found, copied, and read aloud
    "svg.hashsalt": "cem",  # else ids in the file are random, and the same report differs byte for byte
    "pdf.fonttype": 42,  # text that can be found and edited
    "text.parse_math": False,  # a class may be called $x$
}


@dataclass(frozen=True)
class Picture:
    """A finished figure: file name, bytes, the words beside it, and what is seen, for those who do not see it."""

    name: str
    data: bytes
    caption: str
    alt: str
    pdf: bytes = b""  # the same for papers; none of reconstructions, which are pixels

    @property
    def uri(self) -> str:
        """The figure inside an address, so that the page needs no file beside it."""
        return f"data:image/png;base64,{base64.b64encode(self.data).decode('ascii')}"

    @property
    def is_svg(self) -> bool:
        """Whether it can stand in the page as it is, without an address."""
        return self.name.endswith(".svg")

    @property
    def svg(self) -> Markup:
        """The drawing as an element of the page, in its colours. What it says is escaped: matplotlib wrote it."""
        text = self.data.decode("utf-8")
        text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text[text.index("<svg") :], flags=re.DOTALL)
        head, body = text.split(">", 1)
        (box,) = re.findall(r'viewBox="[^"]+"', head)
        name = re.sub(r"\W", "_", self.name)  # two pictures may have equal ids
        body = re.sub(r'\bid="', f'id="{name}-', body)
        body = re.sub(r'\b(?:xlink:)?href="#', f'href="#{name}-', body).replace("url(#", f"url(#{name}-")
        for found, themed in _THEMED.items():
            body = body.replace(found, f"var(--{themed})")
        head = f'<svg {box} role="img" aria-label="%s" style="width: {float(box.split()[2]) / 72:.2f}in">'
        return Markup(head) % self.alt + Markup(body)  # noqa: S704


@contextmanager
def look() -> Iterator[None]:
    """Draw in the report's look, and leave matplotlib's settings as they were."""
    with mpl.rc_context(_LOOK):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    return Figure(figsize=(width, height), layout="constrained")


def finish(figure: Figure, name: str, form: Literal["svg", "png"], caption: str, alt: str) -> Picture:
    """The figure as bytes that depend on nothing but what is drawn."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if form == "svg" else {"Software": None}
    figure.savefig(buffer, format=form, dpi=160, metadata=metadata)
    figure.set_layout_engine(None)  # it is laid out: else it would be drawn once more, to see how
    paper = io.BytesIO()
    figure.savefig(paper, format="pdf", metadata={"CreationDate": None})
    return Picture(f"{name}.{form}", buffer.getvalue(), caption, alt, paper.getvalue())


def colour(index: int) -> str:
    """Colour number `index`; no other is like it. Beyond the palette they are harder to tell apart."""
    if index < len(COLOURS):
        return COLOURS[index]
    more = index - len(COLOURS)
    red, green, blue = colorsys.hls_to_rgb(0.61803398875 * more % 1, 0.42 + 0.1 * (more % 3), 0.55)
    return "#" + "".join(f"{round(255 * part):02x}" for part in (red, green, blue))


def method_colour(index: int) -> str:
    """Colour of a method beside plain noise, which is black."""
    return COLOURS[index] if index < len(COLOURS) - 1 else colour(index + 1)


def marker(index: int) -> str:
    """Marker number `index`; after the last comes the first again."""
    return MARKERS[index % len(MARKERS)]


def empty(axes: Axes, reason: str) -> None:
    """Say why a panel shows nothing."""
    axes.text(0.5, 0.5, reason, ha="center", va="center", transform=axes.transAxes, color="#555555", wrap=True)
    axes.set_xticks([])
    axes.set_yticks([])
