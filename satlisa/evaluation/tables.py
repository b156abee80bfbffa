"""Tables of text cells, for a terminal and for Markdown; the first row is the header."""

from collections.abc import Sequence

Cells = Sequence[Sequence[str]]


def plain_table(rows: Cells, left: int = 1) -> str:
    """Aligned columns, the first `left` of them to the left, the others to the right; what cannot be printed is "?"."""
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if number < left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def markdown_table(rows: Cells, left: int = 1) -> list[str]:
    """The lines of a Markdown table of escaped cells, aligned as `plain_table`."""
    rules = ["---" if number < left else "---:" for number in range(len(rows[0]))]
    return [f"| {' | '.join(cells)} |" for cells in (rows[0], rules, *rows[1:])]


def printable(text: str) -> str:
    """One line that a terminal can show: "?" for control characters and the like."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
