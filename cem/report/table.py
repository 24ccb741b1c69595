"""A table as rows of text: one source for the page and for LaTeX."""

from collections.abc import Sequence
from dataclasses import dataclass

_COLUMNS, _LETTERS = 6, 60  # side by side on paper; letters: of the longest number of each column
PACKAGE = r"% needs \usepackage{booktabs}"
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "σ": r"$\sigma$", "λ": r"$\lambda$",
    "∞": r"$\infty$", "−": r"$-$", "†": r"$\dagger$", "‡": r"$\ddagger$", "§": r"\S{}", "¶": r"\P{}", "–": "--",
    "≤": r"$\le$", "≥": r"$\ge$", "×": r"$\times$", "\N{NO-BREAK SPACE}": "~",
    "<": "$<$", ">": "$>$", "|": r"\textbar{}", "√": r"$\surd$", "ε": r"$\varepsilon$", "δ": r"$\delta$",
    "·": r"$\cdot$", "…": r"\ldots{}", "→": r"$\to$", "½": r"$\frac12$", "²": r"$^2$", "ẑ": r"$\hat z$",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """Text cells under a header; the first `text_columns` are words, the rest numbers."""

    name: str
    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: tuple[str, ...] = ()
    text_columns: int = 1

    @property
    def wide(self) -> bool:
        """Whether paper has no place for its columns side by side: numbers do not break, as words do."""
        numbers = list(zip(*self.rows, strict=True))[self.text_columns :]
        return len(self.header) > _COLUMNS or sum(max(map(len, column)) for column in numbers) > _LETTERS

    def places(self, names: Sequence[str]) -> list[int]:
        """Of the columns whose headers begin with these, in the table's order."""
        return [place for place, name in enumerate(self.header) if name.startswith(tuple(names))]

    def latex(self) -> str:
        """A `tabular` that needs the package booktabs."""
        form = "l" * self.text_columns + "r" * (len(self.header) - self.text_columns)
        lines = [" & ".join(map(escape_latex, row)) + r" \\" for row in [self.header, *self.rows]]
        notes = [f"% {note}" for note in self.notes]
        body = [r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"]
        return "\n".join([PACKAGE, *notes, rf"\begin{{tabular}}{{{form}}}", *body, r"\end{tabular}", ""])

    def markdown(self) -> str:
        """A table of GitHub's Markdown, with the notes below it."""
        ruler = ["---"] * self.text_columns + ["---:"] * (len(self.header) - self.text_columns)
        cells = [[cell.replace("|", r"\|") for cell in row] for row in (self.header, *self.rows)]
        lines = [f"| {' | '.join(row)} |" for row in (cells[0], ruler, *cells[1:])]
        return "\n".join([*lines, "", *(f"{note}\n" for note in self.notes)])


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it stands."""
    return "".join(_LATEX.get(character, character) for character in text)
