"""What would surprise: one line for each problem, with row numbers."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from satlisa.check.duplicates import Duplicate
from satlisa.check.facts import Facts
from satlisa.check.listing import grouped, rows_that
from satlisa.check.parts import Part
from satlisa.check.places import wrong_places
from satlisa.data.rows import BARE, MASKS, NEGATIVE, TEXT

FEW = 20  # rows of a task from which on its answers are compared
ONE_ANSWER = 0.98  # share of the answers from which on they teach one answer
_TINY = 0.25  # share of masks below a pixel of SAM's mask frame
_FULL = 0.5  # share of rows whose masks cover the whole image
_WHOLE = 0.999  # of an image
_EMPTY = 0.05  # share of instances without a pixel
_SHOWN = 3  # pairs of rows
_NUMBERS = re.compile(r"\d+")
_COUNTS = re.compile(r"(?<!\w)\d+(?!\w)")  # no part of a name, such as "B52"
_NONE = re.compile(r"\b(?:no|none|nothing)\b", re.IGNORECASE)

# Reasons of `RowError` that say what a dataset's labels are, whatever their number; what to say of them.
_TELLING = (
    ("none of which covers any of the image", "have masks that are empty"),
    ("[x, y, width, height]", "have boxes as `[x, y, width, height]`; `[x0, y0, x1, y1]` is read"),
    (
        "with x0 <= x1",
        "have boxes whose corners are swapped, as in `[x, y, width, height]`; `[x0, y0, x1, y1]` is read",
    ),
    ("found coordinates of one unit", "mix units"),
    ("expected coordinates from 0 to 1000", "have coordinates beyond 1000, as pixels are; thousandths are read"),
    ("the row has no polygons for it", "have `<SEG>` and no masks"),
    ("max_seq_length is", "have a question or masks that do not fit `max_seq_length`"),
)


@dataclass(frozen=True)
class Context:
    """What problems are measured by.

    Attributes:
        parts: of the rows, by number.
        max_skip: share of training rows that may be skipped.
        max_length: tokens of a conversation.
    """

    parts: Sequence[Part]
    max_skip: float
    max_length: int

    def split_of(self, one: Facts) -> str:
        """The name of a row's split."""
        return self.parts[one.part].split

    def name(self, part: int) -> str:
        """A part's name in messages: "train split of a"."""
        return f"{self.parts[part].split} split of {self.parts[part].dataset}"


def find_problems(facts: Sequence[Facts], duplicates: Sequence[Duplicate], context: Context) -> list[str]:
    """One line for each problem of the rows that training reads; none for a dataset without surprises."""
    read = [one for one in facts if context.parts[one.part].is_read]
    lines = [*_skipped(read, context)]
    for number in range(len(context.parts)):
        own = [one for one in read if one.part == number]
        for line in (*_refused(own), *_texts(own, context), *_masks(own), *wrong_places(own)):
            lines.append(f"{context.name(number)}: {line}")
    return [*lines, *_leaks(duplicates, context)]


def _skipped(read: Sequence[Facts], context: Context) -> Iterator[str]:
    for split in ("train", "validation"):
        rows = [one for one in read if context.split_of(one) == split]
        skipped = [one for one in rows if one.reason]
        if rows and len(skipped) > context.max_skip * len(rows):
            share = f"{len(skipped):,} of {len(rows):,} rows cannot be used, more than MAX_SKIP ({context.max_skip:g})"
            first = skipped[0]
            yield f"{split} split: {share}; the first: row {first.index}: `{first.column}` {first.reason}"


def _refused(rows: Sequence[Facts]) -> Iterator[str]:
    for piece, text in _TELLING:
        if found := [one for one in rows if _telling(one.reason) == piece]:
            yield rows_that(found, text)


def _telling(reason: str) -> str:
    return next((piece for piece, _ in _TELLING if piece in reason), "")


def _texts(rows: Sequence[Facts], context: Context) -> Iterator[str]:
    if found := [one for one in rows if one.is_cut]:
        longest = max(one.tokens for one in found)
        yield rows_that(
            found,
            f"are longer than max_seq_length {context.max_length}, up to {longest:,} tokens; the ends of their answers "
            "are cut",
        )
    if found := [one for one in rows if one.unread]:
        yield rows_that(
            found,
            f"have outlines and a question for masks, and are read as text: put {_listed(found, lambda one: one.task)} "
            "into SEG_TASKS",
        )
    for task, of_task in grouped(rows, lambda one: one.task).items():
        answers = Counter(normalised(one.answer) for one in of_task if one.kind == TEXT)
        total = answers.total()
        if total >= FEW and (most := answers.most_common(1)[0])[1] >= ONE_ANSWER * total:
            same = [one for one in of_task if one.kind == TEXT and normalised(one.answer) == most[0]]
            share = f"{100 * most[1] / total:.1f} % of the {total:,} answers"
            yield f"task {task}: {share} are {same[0].answer!r}; a model learns to say nothing else"


def _masks(rows: Sequence[Facts]) -> Iterator[str]:
    if found := [one for one in rows if one.kind == BARE]:
        yield rows_that(
            found,
            f"have a segmentation task ({_listed(found, lambda one: one.task)}), but neither masks nor a word that "
            "there are none (`polygons: []`); they are trained as text",
        )
    for task, of_task in grouped(rows, lambda one: one.task).items():
        yield from (f"task {task}: {line}" for line in _of_task(of_task))


def _of_task(rows: Sequence[Facts]) -> Iterator[str]:
    masked = [one for one in rows if one.kind == MASKS]
    claimed = {template(one.answer) for one in masked}
    negatives = [one for one in rows if one.kind == NEGATIVE]
    empty = [one for one in negatives if template(one.answer) in claimed or claims_masks(one.answer)]
    if empty:
        yield rows_that(empty, f"have no masks and an answer that speaks of some ({empty[0].answer!r})")
    if len(negatives) == len(rows) - sum(bool(one.reason) for one in rows) and len(negatives) >= FEW:
        yield f"none of the {len(rows):,} rows has a mask; the model learns that there are none"
    if found := [one for one in masked if one.tiny]:
        tiny, total = sum(one.tiny for one in found), sum(one.masks for one in masked)
        if tiny > _TINY * total:
            yield rows_that(found, f"have {tiny:,} masks (of {total:,}) below one pixel of SAM's mask frame of 256²")
    if (found := [one for one in masked if one.share >= _WHOLE]) and len(found) > _FULL * len(masked):
        yield rows_that(found, f"have masks that cover the whole image, of {len(masked):,} rows")
    if found := [one for one in masked if one.empty]:
        empties, total = sum(one.empty for one in found), sum(one.masks + one.empty for one in masked)
        if empties > _EMPTY * total:
            yield rows_that(found, f"have {empties:,} instances (of {total:,}) that cover no pixel")


def claims_masks(answer: str) -> bool:
    """Whether an answer counts objects, and so cannot be one that there are none."""
    counts = _COUNTS.findall(answer)
    return bool(counts) and all(int(count[:9]) for count in counts) and not _NONE.search(answer)


def _leaks(duplicates: Sequence[Duplicate], context: Context) -> Iterator[str]:
    pairs: dict[tuple[int, int, bool], list[Duplicate]] = defaultdict(list)
    for found in duplicates:
        pairs[found.one.part, found.other.part, found.is_equal].append(found)
    for (one, other, is_equal), group in pairs.items():
        how = "byte by byte" if is_equal else "stored anew, at another size or quality"
        images = f"{len(group):,} image{'s' * (len(group) != 1)}"
        rows = ", ".join(f"{found.one.index} = {found.other.index}" for found in group[:_SHOWN])
        yield (
            f"{images} of the {context.name(one)} {'is' if len(group) == 1 else 'are'} in the {context.name(other)} "
            f"too, {how} (rows {rows}{', …' * (len(group) > _SHOWN)}); scores there say less than they seem to"
        )


def normalised(answer: str) -> str:
    """An answer without case, white space and full stop."""
    return " ".join(answer.casefold().split()).rstrip(".")


def template(answer: str) -> str:
    """An answer whose numbers, except 0, are all the same."""
    return _NUMBERS.sub(lambda found: "#" if int(found[0][:9]) else "0", normalised(answer))


def _listed(rows: Sequence[Facts], key: Callable[[Facts], str]) -> str:
    return ", ".join(sorted({key(one) for one in rows})[:5])
