"""Which results are of the same rows."""

import pytest

from satlisa.errors import SatlisaError
from satlisa.evaluation.same_rows import check_same_rows, samples_by_row, shortened


def sample(index: int, task: str = "vqa", **known) -> dict:
    return {"task": task, "index": index, "prompt": "What?", "expected": "Fields", "output": "", "error": None} | known


def check(first: list[dict], second: list[dict]) -> None:
    one, other = (samples_by_row({"settings": {}, "samples": samples}, "x.json") for samples in (first, second))
    check_same_rows(one, other, ("A.json", "B.json"))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([sample(0), sample(1)], [sample(1), sample(0)]),
        ([sample(0)], [sample(0, output="other", error="out of memory")]),
        ([sample(0)], [sample(0, prompt=None, expected=None, error="unreadable")]),
        ([sample(0, expected="Two. <SEG> <SEG>")], [sample(0, expected="Two. [SEG]")]),
        ([sample(0, image_key="a")], [sample(0)]),
        ([sample(0, "vqa"), sample(0, "caption")], [sample(0, "caption"), sample(0, "vqa")]),
    ],
)
def test_the_same_rows(first, second) -> None:
    check(first, second)
    check(second, first)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([sample(0), sample(3)], [sample(0)], r"found only in A\.json: row 3 of 'vqa'; evaluate both with the same"),
        ([sample(0)], [sample(0), sample(3)], r"found only in B\.json: row 3 of 'vqa'"),
        ([sample(0)], [sample(0, "other")], r"found only in A\.json: row 0 of 'vqa'"),
        ([sample(0)], [sample(0, prompt="Why?")], r"row 0 of 'vqa': expected the same prompt in both, found What\? in"),
        ([sample(0)], [sample(0, expected="fields")], "expected the same expected in both"),
        ([sample(0, image_key="a")], [sample(0, image_key="b")], "the same image_key in both, found a in A.json and b"),
        ([sample(i) for i in range(9)], [sample(8)], r"row 4 of 'vqa' and 3 more; evaluate"),
    ],
)
def test_other_rows_are_refused(first, second, message) -> None:
    with pytest.raises(SatlisaError, match=message):
        check(first, second)


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ({"settings": {}, "samples": []}, "expected samples, found none"),
        ({"settings": [], "samples": [sample(0)]}, "expected an object of settings"),
        ({"settings": {}, "samples": {"0": sample(0)}}, "a list of samples"),
        ({"settings": {}}, "a list of samples"),
        ({"settings": {}, "samples": [sample(0), 7]}, "sample 1: expected an object, found 7"),
        ({"settings": {}, "samples": [sample(0), sample(0)]}, "row 0 of 'vqa' is there twice"),
        ({"settings": {}, "samples": [sample(True)]}, "`index`: expected a number, found true"),
        ({"settings": {}, "samples": [sample(0.5)]}, r"`index`: expected a number, found 0\.5"),
        ({"settings": {}, "samples": [sample(0, None)]}, "`task`: expected text, found null"),
        (
            {"settings": {}, "samples": [sample(0, prompt=["x"] * 99)]},
            "`prompt`: expected text or null, found .*…; name",
        ),
        ({"settings": {}, "samples": [{"task": "x", "index": 0}]}, "`error`: expected text or null, found nothing"),
    ],
)
def test_results_of_others_are_one_line_errors(results, message) -> None:
    with pytest.raises(SatlisaError, match=message) as raised:
        samples_by_row(results, "x.json")
    assert str(raised.value).startswith("x.json: ") and "\n" not in str(raised.value)


def test_samples_are_sorted() -> None:
    samples = [sample(5, "b"), sample(9, "a"), sample(2, "b"), sample(10**30, "a")]
    assert list(samples_by_row({"settings": {}, "samples": samples}, "x")) == [
        ("a", 9), ("a", 10**30), ("b", 2), ("b", 5),
    ]  # fmt: skip


def test_values_are_shortened() -> None:
    assert shortened("x" * 60) == "x" * 60 and shortened("x" * 61) == "x" * 59 + "…"
    assert shortened({"a": [1, None, "ü"]}) == '{"a": [1, null, "ü"]}'


def test_other_objects_are_other_rows() -> None:
    """Stock prompts and answers are alike in every split; the true objects are not."""
    from typing import Any

    def entries(**kinds: Any) -> Any:
        entry = {"task": "t", "index": 1, "prompt": "Segment", "expected": "Here", "output": "x", "error": None}
        return {("t", 1): entry | kinds}

    one = entries(instances={"truth_areas": [4, 5]})
    check_same_rows(one, entries(instances={"truth_areas": [4, 5]}), ("a", "b"))
    check_same_rows(one, entries(), ("a", "b"))  # of an earlier version
    with pytest.raises(SatlisaError, match="expected the same objects in both"):
        check_same_rows(one, entries(instances={"truth_areas": [4, 6]}), ("a", "b"))
    with pytest.raises(SatlisaError, match="expected the same objects in both"):
        referring = [entries(referring={"truth_pixels": pixels, "prediction_pixels": 1}) for pixels in (7, 8)]
        check_same_rows(*referring, ("a", "b"))
