"""CHECK.md: what the rows of a dataset are, and what would surprise about them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from satlisa.check.duplicates import Duplicate
from satlisa.check.facts import Facts
from satlisa.check.listing import grouped, numbers
from satlisa.check.problems import Context, normalised
from satlisa.check.sheet import Shown
from satlisa.data.rows import MASKS
from satlisa.data.sample import RowError
from satlisa.evaluation.report import escape
from satlisa.evaluation.tables import markdown_table
from satlisa.training.fault_tolerance.skipped_rows import Skips

REPORT_FILE, IMAGE_FOLDER, TITLE = "CHECK.md", "check_images", "# Check of a dataset"
_WIDTH = 240  # of a picture, in CSS pixels: three fit side by side on GitHub
_COLUMNS = 3
_BAR = 40  # characters of the longest bar
_BINS = (64, 128, 192, 256, 320, 384, 448, 512, 768, 1024, 2048)
_SHARES = (0.0, 0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.999)
_COUNTS = (1, 2, 4, 8, 16, 32)
_MOST = 10  # answers and classes that are listed for a task


@dataclass(frozen=True)
class Report:
    """What a check has found.

    Attributes:
        settings: what was checked, in one line.
        facts: of all rows.
        problems, duplicates, shown: what was found, and the contact sheet.
        summary: one line for each part that training reads.
        context: of the problems.
        note: about the token counts.
    """

    settings: str
    facts: Sequence[Facts]
    problems: Sequence[str]
    duplicates: Sequence[Duplicate]
    shown: Sequence[Shown]
    summary: Sequence[str]
    context: Context
    note: str = ""

    @property
    def read(self) -> list[Facts]:
        """The rows that training reads."""
        return [one for one in self.facts if self.context.parts[one.part].is_read]


def render(report: Report) -> str:
    """The report in Markdown."""
    lines = [TITLE, "", escape(report.settings), ""]
    if report.problems:
        lines += [f"**{len(report.problems):,} problem{'s' * (len(report.problems) != 1)}**", ""]
        lines += [f"- {escape(line)}" for line in report.problems]
    else:
        lines += ["**No problem found.**"]
    lines += ["", *(f"- {escape(line)}" for line in report.summary), ""]
    for title, section in (
        ("Rows", _rows(report)),
        ("Skipped rows", _skipped(report)),
        ("Tokens", _tokens(report)),
        ("Masks", _masks(report)),
        ("Images in several splits", _duplicates(report)),
        ("Answers", _answers(report)),
        ("Classes of the masks", _classes(report)),
        ("Samples", _sheet(report)),
    ):
        lines += [f"## {title}", "", *section, ""]
    return "\n".join(lines)


def _rows(report: Report) -> Iterator[str]:
    """How many rows of each task and source are used as what."""
    parts = report.context.parts
    several = len({part.dataset for part in parts}) > 1
    cells = [["split", *["dataset"] * several, "task", "source", "read as", "for example", "rows"]]
    for number, part in enumerate(parts):
        own = [one for one in report.read if one.part == number]
        for rows in grouped(own, lambda one: f"{one.task}\n{one.source}").values():
            about = [part.split, *[part.dataset] * several, rows[0].task or "–", rows[0].source or "–"]
            for kind, some in sorted(grouped(rows, lambda one: one.kind or "skipped").items()):
                cells.append([*map(escape, about), kind, numbers(some), f"{len(some):,}"])
    yield from markdown_table(cells, len(cells[0]) - 1)
    for part in (part for part in report.context.parts if not part.is_read):
        yield ""
        name = f"{escape(part.split)} of {escape(part.dataset)}"
        yield f"{name}: {len(part.rows):,} more rows, of which only the images are compared."


def _skipped(report: Report) -> Iterator[str]:
    """Why rows are skipped, most frequent first."""
    found = False
    for number in range(len(report.context.parts)):
        rows = [one for one in report.facts if one.part == number and one.reason]
        for line in Skips(RowError(one.index, one.column, one.reason) for one in rows).summary():
            found = True
            yield f"- {escape(f'{report.context.name(number)}: {line}')}"
    if not found:
        yield "None."


def _tokens(report: Report) -> Iterator[str]:
    """Lengths of the conversations, with their images."""
    lengths = [one.tokens for one in report.read if one.tokens]
    limit = report.context.max_length
    if report.note:
        yield report.note
        yield ""
    if not lengths:
        yield "No usable row."
        return
    over = sum(length > limit for length in lengths)
    yield (
        f"Whole conversations with their image: median {sorted(lengths)[len(lengths) // 2]:,}, longest "
        f"{max(lengths):,}; "
        f"{over:,} of {len(lengths):,} exceed `max_seq_length` {limit:,}."
    )
    yield ""
    bins = sorted({*(edge for edge in _BINS if edge < 2 * max(lengths)), limit})
    yield from _histogram(
        "tokens, up to", {f"{edge:,}{' (limit)' if edge == limit else ''}": edge for edge in bins}, lengths
    )


def _histogram(title: str, edges: Mapping[str, float], values: Sequence[float]) -> list[str]:
    """Bars of how many values lie up to each edge, above the one before; the last bar has all above."""
    counts, before = [], float("-inf")
    for edge in edges.values():
        counts.append(sum(before < value <= edge for value in values))
        before = edge
    counts.append(sum(value > before for value in values))
    names = [*edges, "more"]
    longest = max(counts) or 1
    cells = [[title, "", "rows"]]
    for name, count in zip(names, counts, strict=True):
        cells.append([name, "█" * -(-_BAR * count // longest), f"{count:,}"])
    while len(cells) > 2 and cells[-1][-1] == "0":
        cells.pop()
    return markdown_table(cells, 2)


def _masks(report: Report) -> Iterator[str]:
    """How many masks rows have, and how much of the image they cover."""
    rows = [one for one in report.read if one.kind == MASKS]
    if not rows:
        yield "No row has masks."
        return
    yield from _histogram("masks per row, up to", {f"{edge:,}": edge for edge in _COUNTS}, [one.masks for one in rows])
    yield ""
    shares = {f"{100 * edge:g} %": edge for edge in _SHARES}
    yield from _histogram("share of the image, up to", shares, [one.share for one in rows])
    yield ""
    full = [one for one in rows if one.share >= _SHARES[-1]]
    for text, some, count in (
        ("cover the whole image", full, len(full)),
        ("are smaller than one pixel of SAM's mask frame", [o for o in rows if o.tiny], sum(o.tiny for o in rows)),
        ("cover no pixel and are left out", [o for o in rows if o.empty], sum(o.empty for o in rows)),
        (
            "are left out beyond `max_instances`",
            [o for o in rows if o.left_out > o.empty],
            sum(o.left_out - o.empty for o in rows),
        ),
    ):
        of_rows = f" ({numbers(some)})" if some else ""
        yield f"- {count:,} {'rows have masks that' if some is full else 'masks'} {text}{of_rows}"
    turned = [one for one in report.read if one.orientation != 1]
    yield f"- {len(turned):,} rows have an image that EXIF turns{f' ({numbers(turned)})' if turned else ''}"


def _duplicates(report: Report) -> Iterator[str]:
    """Which pictures of training are in other splits."""
    if not report.duplicates:
        yield "None: no image of the training rows is in another split, neither byte by byte nor stored anew."
        return
    cells = [["training row", "other split", "row", "how"]]
    for found in report.duplicates[:100]:
        where = escape(report.context.name(found.other.part))
        how = "byte by byte" if found.is_equal else "stored anew"
        cells.append([f"{found.one.index:,}", where, f"{found.other.index:,}", how])
    yield from markdown_table(cells, 2)


def _answers(report: Report) -> Iterator[str]:
    """The most frequent answers of each task."""
    cells = [["task", "answer", "rows", "share"]]
    for task, rows in grouped([one for one in report.read if one.kind], lambda one: one.task).items():
        counts = Counter(normalised(one.answer) for one in rows)
        spelled = {normalised(one.answer): one.answer for one in reversed(rows)}
        for text, count in counts.most_common(_MOST):
            cells.append([escape(task), escape(spelled[text]), f"{count:,}", f"{100 * count / len(rows):.1f} %"])
        if len(counts) > _MOST:
            rest = sum(count for _, count in counts.most_common()[_MOST:])
            cells.append(
                [escape(task), f"{len(counts) - _MOST:,} others", f"{rest:,}", f"{100 * rest / len(rows):.1f} %"]
            )
    yield from markdown_table(cells, 2)


def _classes(report: Report) -> Iterator[str]:
    """What the objects with masks are called."""
    counts = Counter(label for one in report.read for label in one.labels if label)
    unnamed = sum(not label for one in report.read for label in one.labels)
    if not counts:
        yield "The dataset does not name the objects of its masks."
        return
    total = counts.total() + unnamed
    cells = [["class", "masks", "share"]]
    cells += [[escape(name), f"{n:,}", f"{100 * n / total:.1f} %"] for name, n in counts.most_common(3 * _MOST)]
    cells += (
        [["not named, or several objects in one mask", f"{unnamed:,}", f"{100 * unnamed / total:.1f} %"]]
        if unnamed
        else []
    )
    yield from markdown_table(cells)


def _sheet(report: Report) -> Iterator[str]:
    """The contact sheet: pictures with masks, prompt and answer under each."""
    if not report.shown:
        yield "No usable row."
        return
    for start in range(0, len(report.shown), _COLUMNS):
        row = [*report.shown[start : start + _COLUMNS]]
        cells = [
            [f'<img src="{IMAGE_FOLDER}/{start + place:02d}.jpg" width="{_WIDTH}">' for place in range(len(row))],
            [_where(shown, report.context) for shown in row],
            [escape(shown.prompt) for shown in row],
            [f"*{escape(shown.answer)}*" for shown in row],
        ]
        yield from markdown_table(cells, _COLUMNS)
        yield ""


def _where(shown: Shown, context: Context) -> str:
    part = context.parts[shown.facts.part]
    return f"**{escape(shown.facts.task)}**, {escape(part.split)} row {shown.facts.index}"
