"""Scores of answers that are right or wrong: accuracy, its mean over classes, baselines, and the confusion matrix.

The class of an answer is its words, or yes and no where that was asked (`metrics.is_correct` judges them). An accuracy
says little without the one of the best constant answer: where 70 % of the questions have the answer "no", a model that
never looks at an image has 70 %. The mean over classes gives such a model 1 / number of classes.
"""

import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from satlisa.evaluation.metrics import is_yes_no, normalise
from satlisa.evaluation.scoring.bootstrap import Statistic, mean_of

DEFINITIONS = {
    "accuracy": "share of the judged answers that is right: yes/no by the first word, scene classes by all words",
    "macro_accuracy": "mean over the expected classes of the share of their answers that is right: mean recall, "
    "balanced accuracy (Brodersen et al. 2010)",
    "constant_accuracy": "accuracy of the best constant answer: the share of the most frequent expected class",
    "exact_match": "share of all text answers with exactly the expected words; case and punctuation do not count",
    "constant_exact_match": "exact match of the best constant answer: the share of the most frequent expected answer",
}

MOST_LABELS = 500  # of a confusion matrix
_MOST_DRAWN = 48  # of its picture
_SEG = re.compile(r"<SEG>|\[SEG\]")
_LONGEST_LABEL = 28  # characters in a picture
_CELL = 0.3  # inches

Entry = Mapping[str, Any]
Matrix = Mapping[str, Any]


def statistics(entries: Sequence[Entry]) -> dict[str, Statistic]:
    """accuracy and macro_accuracy of entries with `correct`, exact_match of those with `exact_match`."""
    found: dict[str, Statistic] = {}
    if judged := _judged(entries):
        correct = np.full(len(entries), np.nan)
        correct[list(judged)] = [entries[number]["correct"] for number in judged]
        found |= {"accuracy": mean_of(correct), "macro_accuracy": _macro(correct, judged)}
    if texts := _texts(entries):
        matches = np.full(len(entries), np.nan)
        matches[texts] = [entries[number]["exact_match"] for number in texts]
        found["exact_match"] = mean_of(matches)
    return found


def baselines(entries: Sequence[Entry]) -> dict[str, float]:
    """constant_accuracy and constant_exact_match, over the same entries as accuracy and exact_match."""
    found = {}
    if judged := _judged(entries):
        found["constant_accuracy"] = _share_of_most_frequent(list(judged.values()))
    if texts := _texts(entries):
        expected = [normalise(_words(entries[number]["expected"])) for number in texts]
        found["constant_exact_match"] = _share_of_most_frequent(expected)
    return found


def confusion(entries: Sequence[Entry], most: int = MOST_LABELS) -> dict[str, Any] | None:
    """Which classes were taken for which; None without judged answers.

    Returns:
        {"labels", "counts"}: rows are expected classes, the most frequent first, and columns are answered ones; the
        last column, which has no label, counts answers that are none of them. Of more than `most` classes, the rarest
        are pooled in a last label, "(12 more)"; its cells hold right and wrong answers alike.
    """
    judged = _judged(entries)
    if not judged:
        return None
    frequencies = Counter(judged.values())
    labels = sorted(frequencies, key=lambda label: (-frequencies[label], label))
    places = {label: min(place, most - 1) if len(labels) > most else place for place, label in enumerate(labels)}
    size = min(len(labels), most)
    counts: np.ndarray = np.zeros((size, size + 1), dtype=int)
    for number, label in judged.items():
        answer = _answered(entries[number], label)
        counts[places[label], size if answer is None else places.get(answer, size)] += 1
    names = [label or "(empty)" for label in labels]
    if len(labels) > most:
        names[most - 1 :] = [f"({len(labels) - most + 1} more)"]
    return {"labels": names, "counts": counts.tolist()}


def draw_confusion(matrix: Matrix, path: str | Path) -> None:
    """Write a matrix of `confusion` as a picture: colours are shares of the row, numbers are counts."""
    from matplotlib.figure import Figure  # takes half a second

    matrix = _pooled(matrix, _MOST_DRAWN)
    counts = np.asarray(matrix["counts"], dtype=float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    labels = [_shortened(label) for label in matrix["labels"]]
    rows = [f"{label} ({total:.0f})" for label, total in zip(labels, counts.sum(axis=1), strict=True)]
    side = 2.5 + max(1.5, _CELL * len(labels))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axis = figure.add_subplot()
    image = axis.imshow(shares, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    axis.set_yticks(range(len(rows)), rows, fontsize=8, parse_math=False)
    axis.set_xticks(range(len(rows) + 1), [*labels, "other answer"], fontsize=8, rotation=90, parse_math=False)
    axis.set(xlabel="answer", ylabel="expected (number)")
    axis.axvline(len(rows) - 0.5, color="black", linewidth=0.8)
    digits = len(str(int(counts.max(initial=0))))
    size = min(8.0, 110 * _CELL / digits)  # points: the number fits into its cell
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, f"{count:.0f}", ha="center", va="center", fontsize=size, color=colour)
    figure.colorbar(image, ax=axis, label="share of the row", fraction=0.03)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # letters that its font lacks are drawn as boxes
        figure.savefig(path, dpi=110)


def _pooled(matrix: Matrix, most: int) -> Matrix:
    """A matrix of at most so many labels, whose last one pools the rarest."""
    names, counts = list(matrix["labels"]), np.asarray(matrix["counts"])
    if len(names) <= most:
        return matrix
    rows = np.concatenate([counts[: most - 1], counts[most - 1 :].sum(axis=0, keepdims=True)])
    rare = rows[:, most - 1 : -1].sum(axis=1, keepdims=True)
    pooled = np.concatenate([rows[:, : most - 1], rare, rows[:, -1:]], axis=1)
    return {"labels": [*names[: most - 1], f"({len(names) - most + 1} more)"], "counts": pooled.tolist()}


def _shortened(label: str) -> str:
    return label if len(label) <= _LONGEST_LABEL else label[: _LONGEST_LABEL - 1].rstrip() + "…"


def _judged(entries: Sequence[Entry]) -> dict[int, str]:
    """The expected class of each judged entry, by its number."""
    return {
        number: _label(entry, entry["expected"])
        for number, entry in enumerate(entries)
        if entry.get("error") is None and isinstance(entry.get("correct"), bool) and _has_texts(entry)
    }


def _texts(entries: Sequence[Entry]) -> list[int]:
    return [
        number
        for number, entry in enumerate(entries)
        if entry.get("error") is None and isinstance(entry.get("exact_match"), bool) and _has_texts(entry)
    ]


def _has_texts(entry: Entry) -> bool:
    return all(isinstance(entry.get(key), str) for key in ("prompt", "expected", "output"))


def _words(text: str) -> str:
    return _SEG.sub(" ", text)


def _label(entry: Entry, text: str) -> str:
    words = normalise(_words(text))
    return words.split(" ")[0] if is_yes_no(entry["prompt"], entry["expected"]) else words


def _answered(entry: Entry, expected: str) -> str | None:
    """The class of an answer; None where only the verdict tells that it is not the expected one."""
    if entry["correct"]:
        return expected
    label = _label(entry, entry["output"])
    return label if label != expected else None


def _macro(correct: np.ndarray, judged: Mapping[int, str]) -> Statistic:
    """The mean of the recalls of the classes that a draw holds."""
    numbers = np.array(sorted(judged, key=lambda number: judged[number]))
    labels = np.array([judged[number] for number in numbers], dtype=object)
    starts = np.flatnonzero(np.r_[True, labels[1:] != labels[:-1]])

    def statistic(counts: np.ndarray) -> np.ndarray:
        drawn = counts[:, numbers]
        totals = np.add.reduceat(drawn, starts, axis=1)  # (B, classes)
        hits = np.add.reduceat(drawn * correct[numbers], starts, axis=1)
        present = totals > 0
        recalls = np.divide(hits, totals, out=np.zeros_like(hits), where=present)
        number = present.sum(axis=1)
        means: np.ndarray = np.divide(recalls.sum(axis=1), number, out=np.full(len(counts), np.nan), where=number > 0)
        return means

    return statistic


def _share_of_most_frequent(labels: Sequence[str]) -> float:
    return Counter(labels).most_common(1)[0][1] / len(labels)
