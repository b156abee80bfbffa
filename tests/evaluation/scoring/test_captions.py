"""Right values of BLEU, ROUGE-L and CIDEr-D.

CORPUS holds what pycocoevalcap 1.2 gives (Java 17), each caption tokenised with another one after it:

    pip install pycocoevalcap==1.2 numpy
    python -c "
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
    def tokens(captions):
        lines = {i: [{'caption': c} for text in texts for c in (text, '~')] for i, texts in enumerate(captions)}
        return {i: found[::2] for i, found in PTBTokenizer().tokenize(lines).items()}
    answers = tokens([answer] for answer, _ in CORPUS)
    references = tokens(texts for _, texts in CORPUS)
    for score in (Bleu(4), Rouge(), Cider()):
        print(score.compute_score(references, answers))"
"""

import numpy as np
import pytest

from satlisa.evaluation.scoring.bootstrap import intervals, value_of
from satlisa.evaluation.scoring.captions import DEFINITIONS, is_caption, statistics
from tests.helpers.quick import quick

# fmt: off
CORPUS = [  # answer, references
    ("A dense residential area with many small houses.",
     ["A satellite image of a dense residential area, with many small houses and a few trees.",
      "Many small houses are in a dense residential area.",
      "a residential area"]),
    ("Two white airplanes are parked on the runway.",
     ["There are two white airplanes parked on the runway near the terminal.",
      "Two planes near a terminal"]),
    ("The runway isn't visible; it's hidden by clouds!",
     ["The airport's main runway isn't visible; it's hidden by clouds!"]),
    ("You can't see the river.",
     ["You can't see the river, and there aren't any bridges. Don't expect more.",
      "No river can be seen."]),
    ("We're looking at a stadium.", ["We're looking at what they've built: it'll be a stadium, I'm sure."]),
    ("I cannot see it.", ["I cannot see it; you're gonna need a map.", "You can not see it without a map"]),
    ("The houses' roofs are red.", ["The houses' roofs are red, and the church's tower is 30 m high."]),
    ("The scene covers 3,000 m².",
     ["The scene covers 3,000 m² (about 0.3 ha) at 0.5 m/px.",
      "3,000 m² of land (0.3 ha)"]),
    ("A pond with an area of 12.5% of the tile.",
     ["A pond with an area of 12.5% of the tile, i.e. approx. 1,234.56 square metres."]),
    ("The U.S. Army base lies near Washington.",
     ["The U.S. Army base lies near Washington, D.C. The road leads to St. Louis."]),
    ("12 cars, 3 trucks & 1 bus.",
     ["Vehicles: 12 cars, 3 trucks & 1 bus; no. 5 is red.",
      "There are 12 cars, 3 trucks and a bus."]),
    ("Land cost £3 million or €4 million.", ["Land cost $5 million, £3 million or €4 million (¥600)."]),
    ("A 4-lane highway runs north-south.", ["A 4-lane highway runs north-south; left-hand lanes are empty."]),
    ("“Dense forest” and 'bare soil' aren't mixed",
     ["“Dense forest” and ‘bare soil’ aren’t mixed…",
      "\"Dense forest\" and 'bare soil' are mixed."]),
    ("It’s the harbour’s pier",
     ["It’s the harbour’s pier – not the jetty — that’s long.",
      "It's the harbour's long pier."]),
    ("The field (upper left) is fallow.", ["The field [upper left] is {green} and (partly) fallow."]),
    ("Roads and/or paths cross the farmland.", ["Roads and/or paths cross the farmland at 10:30 a.m. on 12/25/2012."]),
    ("About ½ of the image is water.",
     ["About ½ of the image is water; ¼ is sand, 1 3/4 is wrong.",
      "About 1/2 of the image is water"]),
    ("1 3/4 of it is sand", ["1 3/4 of it is sand; 1 1/2 is not.", "1 3/4 is sand"]),
    ("The temperature was 30°C.", ["The temperature was 30°C, or 86 °F; 45° N."]),
    ("Buildings, lots of them, everywhere", ["Buildings... lots of them... everywhere -- truly --- everywhere."]),
    ("A café near São Paulo.", ["A naïve façade in São Paulo near the Müller café, Łódź.", "cafe near Sao Paulo"]),
    ("北京机场 is large.", ["北京机场 and 東京タワー are large."]),
    ("Река рядом.", ["Аэропорт и река рядом.", "Река и аэропорт рядом."]),
    ("An emoji appears ✓", ["An emoji 😀 and a flag 🇩🇪 appear ✓ → done."]),
    ("", ["An empty answer has no words."]),
    ("...", ["An answer of punctuation has none either.", "Nor has this one."]),
    ("buildings", ["buildings"]),
    ("two cars", ["two cars", "three cars"]),
    ("the the the the the the the", ["the cat is on the mat", "there is a cat on the mat"]),
    ("A long answer that goes on and on, and on, and on, about trees, houses, roads, and other things.",
     ["Trees and houses."]),
    ("The same as the reference, word for word.", ["The same as the reference, word for word."]),
    ("word for word, the same as the reference",
     ["The same as the reference, word for word.",
      "The same as the reference, word for word."]),
    ("R&D center of AT&T next to the Yahoo! office",
     ["R&D center of AT&T next to the Yahoo! office, Inc. and Co. Ltd."]),
    ("What is it?!", ["What is it?! Really?? No!!! Yes.", "!"]),
    ("A satellite image of farmland.", ["!!!", "A satellite image of farmland <b>with</b> fields."]),
    ("A parking lot with cars.",
     ["A parking lot with cars.",
      "A parking lot with cars.",
      "A parking lot with cars.",
      "A parking lot with cars.",
      "A parking lot with cars."]),
    ("A river and a bridge.",
     ["A bridge over a river.",
      "A river.",
      "A bridge crosses the wide river near the town.",
      "River with bridge",
      "There is a bridge."]),
]
BLEU = [
    0.6655629689029972, 0.618455431541169, 0.585048752676039, 0.5612068712841253,
]
ROUGE_L, CIDER_D = 0.6567994916425934, 3.6166017285695378
ROUGE_L_OF_IMAGES = [
    1.0, 0.6756329113924051, 0.8495821727019499, 0.5041322314049587, 0.5041322314049587, 0.6288659793814433,
    0.4848966613672496, 0.5596330275229358, 0.7884841363102233, 0.6288659793814433, 0.7034596375617792,
    0.6853932584269663, 0.6792873051224945, 1.0, 0.9104477611940297, 0.49459459459459465, 0.6703296703296703, 1.0,
    1.0, 0.4935275080906149, 0.8090185676392573, 0.5366568914956013, 0.47843137254901963, 0.6288659793814433,
    0.43160377358490565, 0.0, 0.0, 1.0, 1.0, 0.31202046035805625, 0.20926243567753, 1.0, 0.625,
    0.7922077922077922, 0.5754716981132075, 0.6792873051224945, 1.0, 0.6192893401015228,
]
CIDER_D_OF_IMAGES = [
    3.275950753520425, 2.166052677769913, 6.81250589010718, 0.9406777493631625, 0.9176506267470302,
    3.515601572848267, 1.6637280509136492, 2.312237250912406, 5.546115438896311, 3.327972736956606,
    4.686783684323771, 3.140311613770093, 5.419596575081745, 8.879141962821631, 5.547863744624566,
    1.1119290705627887, 4.808991338150613, 6.68208786690934, 4.561282427447359, 2.487203899232133,
    7.52036796412164, 1.1148687472552554, 1.768028747579225, 2.3549233304987434, 1.2633794297215095, 0.0, 0.0,
    2.5, 2.967209147592986, 0.10716683002541834, 0.018768335558389256, 10.0, 6.975663861269639, 6.44028759698669,
    1.8835131135500862, 2.418390223623359, 10.0, 2.294613426900498,
]
# fmt: on
KEYS = ["bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider_d"]


def entry(output: str | None, expected: str | None, image_key: str | None = None, **known) -> dict:
    blank = {"caption": True, "image_key": image_key, "prompt": "Describe it", "error": None}
    return blank | {"output": output, "expected": expected} | known


def entries_of(corpus) -> list[dict]:
    """A row for each reference, as datasets with several captions of an image have them."""
    return [entry(a, text, f"image {i}") for i, (a, texts) in enumerate(corpus) for text in texts]


def values(entries: list[dict]) -> dict[str, float | None]:
    return {key: value_of(statistic, len(entries)) for key, statistic in statistics(entries).items()}


def test_corpus_scores_are_those_of_pycocoevalcap() -> None:
    expected = dict(zip(KEYS, [*BLEU, ROUGE_L, CIDER_D], strict=True))
    assert values(entries_of(CORPUS)) == pytest.approx(expected, rel=1e-9)
    assert list(DEFINITIONS) == KEYS


def test_scores_of_each_image_are_those_of_pycocoevalcap() -> None:
    entries = entries_of(CORPUS)
    first = [next(n for n, e in enumerate(entries) if e["image_key"] == f"image {i}") for i in range(len(CORPUS))]
    alone = np.eye(len(entries))[first]
    found = statistics(entries)
    assert found["rouge_l"](alone) == pytest.approx(ROUGE_L_OF_IMAGES, rel=1e-9)
    assert found["cider_d"](alone) == pytest.approx(CIDER_D_OF_IMAGES, rel=1e-9, abs=1e-12)


def test_the_order_of_rows_does_not_matter() -> None:
    entries = entries_of(CORPUS)
    order = np.random.default_rng(0).permutation(len(entries))
    assert values([entries[i] for i in order]) == pytest.approx(values(entries), rel=1e-12)


def test_the_truth_scores_one_and_ten() -> None:
    truth = [
        entry(text, text) for text in ("Two red cars on a road.", "A pond near the old mill.", "Many trees here, too.")
    ]
    expected = dict(zip(KEYS, [1, 1, 1, 1, 1, 10], strict=True))
    assert values(truth) == pytest.approx(expected, rel=1e-8)
    assert all(np.isfinite(statistic(np.eye(3))).all() for statistic in statistics(truth).values())


def test_captions_too_short_for_an_ngram_have_no_such_score() -> None:
    scores = values([entry("two cars", "two cars"), entry("a road", "a road")])
    assert scores["bleu_2"] == pytest.approx(1) and scores["bleu_3"] is None and scores["bleu_4"] is None
    assert scores["cider_d"] == pytest.approx(5)  # of four lengths of n-grams, two
    too_short = values([entry("cars", "two red cars on it"), entry("a road", "a road")])
    assert too_short["bleu_4"] == pytest.approx(0, abs=0.05)  # a reference has 4-grams


def test_an_image_is_scored_once_with_its_first_answer() -> None:
    rows = [
        entry(None, "a red car", "x", error="out of memory"),
        entry("a red car", "a car", "x"),
        entry("?", "car", "x"),
    ]
    other = entry("two big trees", "two big trees", "y")
    scores = values([*rows, other])
    assert scores["rouge_l"] == pytest.approx(1) and scores["bleu_1"] == pytest.approx(1)
    draws = np.array([[5.0, 1.0, 7.0, 1.0], [1.0, 0.0, 1.0, 1.0]])
    assert statistics([*rows, other])["bleu_1"](draws) == pytest.approx([1, 1])


def test_other_prompts_and_images_share_no_references() -> None:
    apart = [entry("a red car", "a car", "x"), entry("a red car", "a red car", "x", prompt="Caption it")]
    together = [entry("a red car", "a car", "x"), entry("a red car", "a red car", "x")]
    unknown = [entry("a red car", "a car"), entry("a red car", "a red car")]
    assert values(apart) == values(unknown) and values(apart)["rouge_l"] < 1
    assert values(together)["rouge_l"] == pytest.approx(1)


def test_one_image_has_no_cider() -> None:
    """Its document frequencies make every weight 0, for right answers too."""
    assert values([entry("two cars", "two cars", "x"), entry("two cars", "a car", "x")])["cider_d"] is None


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [entry("a", "a", caption=False), entry("a", "a", caption=None)],
        [{"task": "x", "prompt": "y", "expected": "a", "output": "a", "error": None}],  # of an older version
        [entry(None, "a", error="unreadable"), entry(None, None, error="unreadable"), entry("a", None)],
    ],
)
def test_without_answered_captions_there_are_no_scores(entries) -> None:
    assert statistics(entries) == {}


def test_empty_answers_and_references_score_zero_and_stay_finite() -> None:
    silent = values([entry("", "two cars on a road"), entry("<SEG>", "a river"), entry("a", "...")])
    assert silent == pytest.approx(dict.fromkeys(KEYS, 0), abs=1e-3)
    both = values([entry("", "."), entry("", "!")])
    assert both == {**dict.fromkeys(KEYS[:4]), "rouge_l": 1.0, "cider_d": 0.0}  # as pycocoevalcap


def test_seg_markers_are_no_words() -> None:
    assert values([entry("two cars <SEG><SEG>", "two cars [SEG]"), entry("x", "y")])["rouge_l"] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("task", "prompt", "expected", "is_one"),
    [
        ("image_captioning", "Describe this satellite image", "A dense forest; 2 roads can be seen.", True),
        ("image_captioning", "What is this?", "Forest", True),
        ("Caption", "", "...", False),
        ("caption", "x", "", False),
        ("vqa", "Please describe the scene.", "A forest by a lake.", True),
        ("vqa", "Describe the land cover", "Forest", False),
        ("vqa", "Is there a description?", "Yes, there is a description", False),
        ("vqa", "What type of land cover is shown?", "A dense forest with roads", False),
        ("object_detection", "Describe all objects with boxes", "building [10, 20, 30, 40]; plane [1, 2, 3, 4]", False),
        ("object_detection", "Describe all objects", '[{"label": "a red car", "bbox": [1, 2, 3, 4]}]', False),
        ("scene_classification", "Describe the class of the scene", "a sparse residential area", False),
        ("scene_description", "Go", "Fields and trees", True),
    ],
)
def test_is_caption(task: str, prompt: str, expected: str, is_one: bool) -> None:
    assert is_caption(task, prompt, expected) is is_one


@pytest.mark.integration
def test_intervals_of_2000_captions_take_seconds() -> None:
    rng = np.random.default_rng(0)
    texts = [
        " ".join(f"word{chr(97 + word)}" for word in rng.integers(26, size=rng.integers(8, 16))) + "."
        for _ in range(4000)
    ]
    entries = [entry(answer, text) for answer, text in zip(texts[::2], texts[1::2], strict=True)]
    with quick(5):
        found = intervals(statistics(entries), len(entries))
    assert all(low < high for low, high in found.values())
