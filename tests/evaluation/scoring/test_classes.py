"""Right values of accuracies, baselines and confusion matrices, computed by hand."""

import json

import numpy as np
import pytest
from PIL import Image

from satlisa.evaluation.metrics import exact_match, is_correct
from satlisa.evaluation.scoring.bootstrap import intervals, value_of
from satlisa.evaluation.scoring.classes import DEFINITIONS, baselines, confusion, draw_confusion, statistics


def entry(task: str, prompt: str, expected: str, output: str, **known) -> dict:
    """As an evaluation makes it."""
    words = output.replace("<SEG>", " ")
    verdicts = {"correct": is_correct(task, prompt, expected, words), "exact_match": exact_match(expected, words)}
    return {"task": task, "prompt": prompt, "expected": expected, "output": output, "error": None} | verdicts | known


def scene(expected: str, output: str, **known) -> dict:
    return entry("scene_classification", "Classify this image", expected, output, **known)


def question(expected: str, output: str) -> dict:
    return entry("flood_assessment", "Is there flooding visible?", expected, output)


def failed(**known) -> dict:
    blank = {"task": "scene_classification", "prompt": None, "expected": None, "output": None}
    return blank | {"correct": None, "exact_match": None, "error": "row 3: no image"} | known


def values(entries: list[dict]) -> dict[str, float | None]:
    return {key: value_of(statistic, len(entries)) for key, statistic in statistics(entries).items()}


SCENES = [
    *[scene("Forest", "Forest")] * 6,
    *[scene("Forest", "A field")] * 2,
    scene("Dense residential", "dense RESIDENTIAL."),
    scene("Dense residential", "Forest"),
    *[scene("Río", "")] * 2,
]


def test_hand_computed_scores() -> None:
    assert values(SCENES) == pytest.approx(
        {"accuracy": 7 / 12, "macro_accuracy": (6 / 8 + 1 / 2 + 0) / 3, "exact_match": 7 / 12}
    )
    assert baselines(SCENES) == pytest.approx({"constant_accuracy": 8 / 12, "constant_exact_match": 8 / 12})


def test_hand_computed_confusion_matrix() -> None:
    assert confusion(SCENES) == {
        "labels": ["forest", "dense residential", "río"],
        "counts": [[6, 0, 0, 2], [1, 1, 0, 0], [0, 0, 0, 2]],
    }


def test_yes_and_no_are_classes_by_the_first_word() -> None:
    entries = [
        question("Yes, 2 flooded buildings visible", "Yes."),
        question("Yes, flooding visible", "No flooding"),
        question("No flooding visible", "no"),
        question("No flooding visible", "Perhaps"),
        question("No flooding visible", "<SEG> No"),
    ]
    assert confusion(entries) == {"labels": ["no", "yes"], "counts": [[2, 0, 1], [1, 1, 0]]}
    assert values(entries) == pytest.approx(
        {"accuracy": 3 / 5, "macro_accuracy": (1 / 2 + 2 / 3) / 2, "exact_match": 0}
    )
    assert baselines(entries) == pytest.approx({"constant_accuracy": 3 / 5, "constant_exact_match": 3 / 5})


@pytest.mark.parametrize(
    ("truths", "make", "constant"),
    [
        (["forest"] * 5 + ["river"] * 3 + ["beach"] * 2, scene, "Forest!"),
        (["No flooding visible"] * 7 + ["Yes, flooding visible"] * 3, question, "No flooding visible"),
    ],
)
def test_a_model_that_always_says_the_same_scores_the_baseline(truths, make, constant) -> None:
    entries = [make(truth, constant) for truth in truths]
    found, baseline = values(entries), baselines(entries)
    assert found["accuracy"] == baseline["constant_accuracy"] == truths.count(truths[0]) / 10
    assert found["exact_match"] == baseline["constant_exact_match"]
    assert found["macro_accuracy"] == pytest.approx(1 / len(set(truths)))
    for other in set(truths):
        others = [make(truth, other) for truth in truths]
        assert values(others)["accuracy"] <= baseline["constant_accuracy"]


def test_open_answers_have_a_baseline_of_exact_matches_only() -> None:
    truths = ["Forest", "forest.", "River", "Desert"]
    entries = [entry("vqa", "What land cover is shown?", truth, "forest") for truth in truths]
    assert values(entries) == {"exact_match": 0.5} and baselines(entries) == {"constant_exact_match": 0.5}
    assert confusion(entries) is None


def test_the_truth_scores_one() -> None:
    truth = [scene(text, text) for text in ("a", "b", "b", "北京")]
    assert values(truth) == {"accuracy": 1, "macro_accuracy": 1, "exact_match": 1}
    assert np.asarray(confusion(truth)["counts"])[:, :-1].tolist() == [[2, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_errors_and_other_kinds_count_nothing() -> None:
    masks = {"correct": None, "exact_match": None, "error": None, "prompt": "x", "expected": "<SEG>", "output": "<SEG>"}
    stranger = {"correct": 1, "exact_match": "yes", "error": None}
    among = [failed(), *SCENES, masks, failed(correct=True, exact_match=True), stranger, {}]
    assert values(among) == pytest.approx(values(SCENES))
    assert baselines(among) == baselines(SCENES) and confusion(among) == confusion(SCENES)
    for nothing in ([], [failed()], [masks, stranger]):
        assert statistics(nothing) == {} and baselines(nothing) == {} and confusion(nothing) is None


def test_draws_without_a_class_average_the_others() -> None:
    entries = [scene("a", "a"), scene("b", "c"), scene("a", "b"), failed()]
    draws = np.array([[1.0, 0, 1, 2], [0, 2, 0, 0], [0, 0, 0, 4], [3, 1, 1, 0]])
    found = statistics(entries)["macro_accuracy"](draws)
    assert found == pytest.approx([0.5, 0.0, np.nan, 3 / 8], nan_ok=True)


def test_rare_classes_are_pooled() -> None:
    entries = [scene(f"class {i}", f"class {j}") for i in range(5) for j in range(5) for _ in range(6 - i)]
    matrix = confusion([*entries, scene("class 4", "unheard")], most=3)
    assert matrix == {
        "labels": ["class 0", "class 1", "(3 more)"],
        "counts": [[6, 6, 18, 0], [5, 5, 15, 0], [9, 9, 27, 1]],
    }
    assert len(confusion(entries)["labels"]) == 5


def test_a_matrix_counts_every_judged_answer_and_is_json() -> None:
    rng = np.random.default_rng(0)
    entries = [scene(f"c{rng.integers(9)}", f"c{rng.integers(12)}") for _ in range(500)]
    matrix = json.loads(json.dumps(confusion(entries, most=6), allow_nan=False))
    assert np.sum(matrix["counts"]) == 500
    matrix = confusion(entries)
    assert np.trace(np.asarray(matrix["counts"])) == sum(item["correct"] for item in entries)


def test_an_expected_answer_without_words_is_a_class_too() -> None:
    assert confusion([scene("!", "?"), scene("!", "x")]) == {"labels": ["(empty)"], "counts": [[1, 1]]}


@pytest.mark.parametrize("number", [1, 2, 12])
def test_a_matrix_is_drawn(number: int, tmp_path) -> None:
    labels = [f"{'a very long name of a class, ' * (i % 2)}$class_{i}^2$ 北" for i in range(number)]
    counts = np.arange(number * (number + 1)).reshape(number, number + 1)
    draw_confusion({"labels": labels, "counts": counts.tolist()}, tmp_path / "matrix.png")
    with Image.open(tmp_path / "matrix.png") as image:
        assert min(image.size) > 200 and max(image.size) < 2000
        assert np.asarray(image.convert("L")).std() > 10


def test_intervals_of_2000_answers_of_many_classes() -> None:
    rng = np.random.default_rng(0)
    entries = [scene(f"c{rng.integers(500)}", "c1") for _ in range(2000)]
    found = intervals(statistics(entries), 2000)
    assert set(found) == {"accuracy", "macro_accuracy", "exact_match"} < set(DEFINITIONS)
    assert found["accuracy"][0] <= values(entries)["accuracy"] <= found["accuracy"][1]
