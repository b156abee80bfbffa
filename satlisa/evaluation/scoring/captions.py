"""Scores of captions: BLEU-1 to -4, ROUGE-L and CIDEr-D, equal to those of pycocoevalcap 1.2.

They are computed here because they are needed per sample, for bootstrap intervals, and because pycocoevalcap is 100 MB
of Java programs that nobody has maintained since 2020. Tokens are those of `ptb_tokens`.

The entries of one image and one prompt are one image of COCO: their expected answers are its references, and the first
of them with an answer is its candidate, scored once. The other ones have no weight; the same image and prompt give the
same answer. References are the answers of evaluated rows only, so an evaluation of some rows may have fewer of them.

METEOR is left out: its own program is Java too, and the packages without Java load WordNet at run time and give another
number.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from satlisa.evaluation.metrics import is_yes_no, normalise
from satlisa.evaluation.scoring.bootstrap import Statistic, mean_of
from satlisa.evaluation.scoring.ptb_tokens import tokenize

_PACKAGE = "tokens and numbers of pycocoevalcap 1.2"
DEFINITIONS = {
    **{
        f"bleu_{n}": f"corpus BLEU of 1- to {n}-grams with the closest reference length (Papineni et al. 2002), "
        f"{_PACKAGE}; none where neither an answer nor a reference has {n} words"
        for n in (1, 2, 3, 4)
    },
    "rouge_l": "mean over images of the F score, beta 1.2, of the longest common subsequence with a reference "
    f"(Lin 2004), {_PACKAGE}",
    "cider_d": f"mean over images of CIDEr-D, 0 to 10 (Vedantam et al. 2015), {_PACKAGE}, which papers print times "
    "100; document frequencies are those of all references, also in bootstrap draws; none for one image",
}

_N = 4
_SMALL, _TINY = 1e-9, 1e-15  # of pycocoevalcap's BLEU, against divisions by 0
_BETA = 1.2
_SIGMA = 6.0
_SEG = re.compile(r"<SEG>|\[SEG\]")
_CAPTION_TASK = re.compile(r"caption|descri(?:be|ption)")
_CAPTION_PROMPT = re.compile(r"\b(?:describe|descri(?:bing|ption)|caption|summari[sz]e|summary)\b")
_COORDINATES = re.compile(r"[\[({]\s*-?\d+(?:\.\d+)?\s*,|^\s*[\[{]")
_FEWEST_WORDS = 3  # of an answer to "Describe …" that is a sentence

Ngram = tuple[str, ...]
Entry = Mapping[str, Any]


def is_caption(task: str, prompt: str, expected: str) -> bool:
    """Whether an answer is a caption: in tasks of that name, or a sentence where the prompt asks for a description.

    Answers that are judged right or wrong (yes/no, scene classes) and lists of coordinates are none.
    """
    if not normalise(expected) or is_yes_no(prompt, expected) or "classif" in task.casefold():
        return False
    if _CAPTION_TASK.search(task.casefold()):
        return True
    is_sentence = len(normalise(expected).split()) >= _FEWEST_WORDS and not _COORDINATES.search(expected)
    return is_sentence and _CAPTION_PROMPT.search(prompt.casefold()) is not None


def statistics(entries: Sequence[Entry]) -> dict[str, Statistic]:
    """The scores of the entries whose `caption` is true.

    Args:
        entries: as in `results.json`; of them, `caption`, `image_key`, `prompt`, `expected`, `output` and `error` are
            read. Without an `image_key` an entry is an image of its own.
    """
    images = _images(entries)
    answered = [image for image in images if image.number is not None]
    if not answered:
        return {}
    columns = np.zeros((len(entries), 3 * _N + 2))
    rouge, cider = np.full((2, len(entries)), np.nan)
    for image, score in zip(answered, _cider_d(images), strict=True):
        columns[image.number] = _bleu_counts(image)
        rouge[image.number] = _rouge_l(image)
        cider[image.number] = score if len(images) > 1 else np.nan
    scores = {f"bleu_{n}": _bleu(columns, n) for n in range(1, _N + 1)}
    return {**scores, "rouge_l": mean_of(rouge), "cider_d": mean_of(cider)}


@dataclass
class _Image:
    """The entries of an image and a prompt. Captions are tokens with spaces between them.

    Attributes:
        number: of the entry that is scored; None where none has an answer.
    """

    references: list[str]
    number: int | None = None
    candidate: str = ""


def _images(entries: Sequence[Entry]) -> list[_Image]:
    images: dict[Any, _Image] = {}
    for number, entry in enumerate(entries):
        if entry.get("caption") is not True or not isinstance(entry.get("expected"), str):
            continue
        key, output = entry.get("image_key"), entry.get("output")
        image = images.setdefault(number if key is None else (str(key), str(entry.get("prompt"))), _Image([]))
        image.references.append(_tokens(entry["expected"]))
        if image.number is None and entry.get("error") is None and isinstance(output, str):
            image.number, image.candidate = number, _tokens(output)
    return list(images.values())


def _tokens(text: str) -> str:
    return " ".join(tokenize(_SEG.sub(" ", text)))


def _ngrams(caption: str) -> Counter[Ngram]:
    words = caption.split()
    return Counter(tuple(words[at : at + n]) for n in range(1, _N + 1) for at in range(len(words) - n + 1))


def _bleu_counts(image: _Image) -> np.ndarray:
    """(14,): n-grams found in a reference, n-grams of the candidate, most of a reference, length, reference length."""
    counts, most = _ngrams(image.candidate), Counter[Ngram]()
    for reference in image.references:
        most |= _ngrams(reference)
    found = np.zeros(_N)
    for ngram, count in (counts & most).items():
        found[len(ngram) - 1] += count
    length, lengths = len(image.candidate.split()), [len(reference.split()) for reference in image.references]
    closest = min(lengths, key=lambda other: (abs(other - length), other))
    sizes = np.arange(_N)
    return np.array([*found, *np.maximum(length - sizes, 0), *np.maximum(max(lengths) - sizes, 0), length, closest])


def _bleu(columns: np.ndarray, n: int) -> Statistic:
    def statistic(counts: np.ndarray) -> np.ndarray:
        sums = counts @ columns
        found, guessed, possible = (sums[:, start : start + _N] for start in (0, _N, 2 * _N))
        precisions = (found[:, :n] + _TINY) / (guessed[:, :n] + _SMALL)
        ratio = (sums[:, -2] + _TINY) / (sums[:, -1] + _SMALL)
        brevity = np.exp(np.minimum(1 - 1 / ratio, 0))
        values: np.ndarray = precisions.prod(axis=1) ** (1 / n) * brevity
        return np.where((guessed[:, n - 1] == 0) & (possible[:, n - 1] == 0), np.nan, values)

    return statistic


def _rouge_l(image: _Image) -> float:
    """Best precision and best recall of the references, each of which may be of another one."""
    # split(" ") as pycocoevalcap: an empty caption is one empty word, a no-break space parts none.
    candidate, references = image.candidate.split(" "), [reference.split(" ") for reference in image.references]
    common = [_common_length(candidate, reference) for reference in references]
    precision = max(common) / len(candidate)
    recall = max(length / len(reference) for length, reference in zip(common, references, strict=True))
    if not precision or not recall:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def _common_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, a bit for each word of `first` (Hyyrö 2004)."""
    places: dict[str, int] = {}
    for at, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << at
    everything = (1 << len(first)) - 1
    unmatched = everything
    for word in second:
        matches = unmatched & places.get(word, 0)
        unmatched = (unmatched + matches | unmatched - matches) & everything
    return len(first) - unmatched.bit_count()


def _cider_d(images: Sequence[_Image]) -> list[float]:
    """CIDEr-D of the images that have an answer; document frequencies are those of all images."""
    references = [[_ngrams(reference) for reference in image.references] for image in images]
    seen = Counter(ngram for counts in references for ngram in set().union(*counts))
    most = float(np.log(len(images)))
    rarity = {ngram: most - float(np.log(frequency)) for ngram, frequency in seen.items()}
    scores = []
    for image, counts in zip(images, references, strict=True):
        if image.number is not None:
            candidate = _weigh(_ngrams(image.candidate), rarity, most)
            similarities = [_similarity(candidate, _weigh(reference, rarity, most)) for reference in counts]
            scores.append(10 * float(np.mean(similarities)))
    return scores


@dataclass
class _Weighted:
    """A caption's n-grams, weighted by tf-idf. `norms` are of the vectors of each n; `length` is in bigrams."""

    weights: dict[Ngram, float]
    norms: np.ndarray
    length: int


def _weigh(counts: Counter[Ngram], rarity: Mapping[Ngram, float], unseen: float) -> _Weighted:
    weights = {ngram: count * rarity.get(ngram, unseen) for ngram, count in counts.items()}
    squares = np.zeros(_N)
    for ngram, weight in weights.items():
        squares[len(ngram) - 1] += weight**2
    length = sum(count for ngram, count in counts.items() if len(ngram) == 2)
    return _Weighted(weights, np.sqrt(squares), length)


def _similarity(candidate: _Weighted, reference: _Weighted) -> float:
    """The mean over n of clipped cosines, less where lengths differ."""
    products = np.zeros(_N)
    for ngram, weight in candidate.weights.items():
        if other := reference.weights.get(ngram):
            products[len(ngram) - 1] += min(weight, other) * other
    norms = candidate.norms * reference.norms
    cosines = np.divide(products, norms, out=np.zeros(_N), where=norms != 0)
    return float(cosines.mean() * np.exp(-((candidate.length - reference.length) ** 2) / (2 * _SIGMA**2)))
