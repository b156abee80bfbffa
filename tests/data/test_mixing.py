"""Several datasets in one epoch: their shares, their order, and what DATASET may say."""

from collections import Counter
from pathlib import Path

import pytest

from satlisa.data.fingerprint import rows_key
from satlisa.data.mixing import ByDataset, Concatenated, mix, parse_datasets
from satlisa.errors import SatlisaError


def source(*sizes: int) -> Concatenated:
    names = "abc"[: len(sizes)]
    parts = tuple([{"task": name, "number": n} for n in range(size)] for name, size in zip(names, sizes, strict=True))
    return Concatenated(tuple(names), parts, sizes)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a", {"a": None}),
        ("a,b:0.3", {"a": None, "b": 0.3}),
        (" owner/a:0.7 , b:.3", {"owner/a": 0.7, "b": 0.3}),
        ("demo,x/y", {"demo": None, "x/y": None}),
        ("a:1", {"a": 1.0}),
    ],
)
def test_names_and_shares(text: str, expected: dict[str, float | None]) -> None:
    assert parse_datasets(text) == expected


def test_a_folder_with_such_a_name_is_one_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a,b:0.3", "c:0.5"):
        Path(name).mkdir()
        assert parse_datasets(name) == {name: None}
    assert parse_datasets("c:0.5,d:0.2") == {"c:0.5": None, "d": 0.2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,a", "expected different names, found 'a'"),
        ("a,", "found 'an empty one'"),
        ("a,b:0", "share of an epoch above 0 up to 1, found 0"),
        ("a,b:1.5", "found 1.5"),
        ("a:0.2,b:0.3", "add up to 1, found 0.5"),
        ("a,b:0.5,c:0.5", "below 1 in all"),
        ("a:0.5", "a single dataset has all rows"),
    ],
)
def test_shares_that_cannot_be(text: str, message: str) -> None:
    with pytest.raises(SatlisaError, match=f"DATASET: .*{message}"):
        parse_datasets(text)


def test_without_shares_each_row_comes_once() -> None:
    sampler = mix(source(5, 3), [None, None], 0)
    for epoch in (0, 1):
        assert sorted(ref.index for ref in sampler.rows(epoch, 0)) == list(range(8))
    assert [r.index for r in sampler.rows(0, 0)] != [r.index for r in sampler.rows(1, 0)]


def test_shares_are_those_of_each_epoch_and_every_row_has_its_turn() -> None:
    sampler = mix(source(70, 1000), [None, 0.3], 0)
    assert sampler.counts == (70, 30) and len(sampler) == 100
    seen: Counter[int] = Counter()
    for epoch in range(40):
        drawn = [ref.index for ref in sampler.rows(epoch, 0)]
        assert len(drawn) == 100 and sum(index >= 70 for index in drawn) == 30
        seen.update(drawn)
    assert {seen[index] for index in range(70)} == {40}
    assert {seen[index] for index in range(70, 1070)} == {1, 2}  # 1,200 draws of 1,000 rows


def test_a_small_dataset_is_repeated_evenly() -> None:
    sampler = mix(source(90, 3), [None, 0.1], 0)
    counted = Counter(ref.index for ref in sampler.rows(0, 0))
    assert sorted(counted[index] for index in (90, 91, 92)) == [3, 3, 4] and len(sampler) == 100
    assert mix(source(30, 10), [0.5, 0.5], 0).counts == (20, 20)
    with pytest.raises(SatlisaError, match=r"b: has no rows for its share of 0.5"):
        mix(source(3, 0), [None, 0.5], 0)


def test_an_epoch_can_be_entered_anywhere() -> None:
    sampler = mix(source(7, 9), [None, 0.5], 3)
    whole = [ref.index for ref in sampler.rows(2, 0)]
    for start in range(len(whole) + 1):
        assert [ref.index for ref in sampler.rows(2, start)] == whole[start:]


def test_rows_know_their_dataset() -> None:
    both = source(2, 0, 3)
    assert [both.place(index) for index in range(5)] == [(0, 0), (0, 1), (2, 0), (2, 1), (2, 2)]
    assert [both[index]["task"] for index in range(5)] == list("aaccc")
    assert both.ranges() == ["a: rows 0 to 1", "b: rows 2 to 1", "c: rows 2 to 4"]
    flags = ByDataset(both, (True, False, False))
    assert [flags(index) for index in range(5)] == [True, True, False, False, False]
    with pytest.raises(IndexError):
        both.place(5)


def test_the_key_of_a_mixture_is_of_all_its_rows() -> None:
    one, other = (mix(source(4, size), [None, 0.5], 0) for size in (3, 4))
    assert rows_key(one) != rows_key(other) and rows_key(one) == rows_key(mix(source(4, 3), [None, 0.5], 0))
