"""A small table of text, rendered for a terminal (rich) or for a document (Markdown)."""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rich.table import Table


class Sheet(NamedTuple):
    """Cells as text; the first column names the row."""

    title: str
    header: list[str]
    lines: list[list[str]]

    def to_markdown(self) -> str:
        """A Markdown table under a bold title; `|` in cells is escaped."""

        def line(cells: list[str]) -> str:
            return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

        ruler = "|" + "|".join(["---"] + ["---:"] * (len(self.header) - 1)) + "|"
        rows = [line(self.header), ruler, *(line(cells) for cells in self.lines)]
        return f"**{self.title}**\n\n" + "\n".join(rows) + "\n"

    def to_rich(self) -> "Table":
        """A rich table; cells are shown as they are, never read as markup."""
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(self.title))
        for place, name in enumerate(self.header):
            table.add_column(Text(name), justify="left" if place == 0 else "right")
        for cells in self.lines:
            table.add_row(*(Text(cell) for cell in cells))
        return table
