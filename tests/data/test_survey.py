"""What is said of a split's rows before a run: counts, the first error, units that look wrong."""

from pathlib import Path
from typing import Any

import pytest

from satlisa.data.dataset import load_rows
from satlisa.data.rows import BARE, MASKS, NEGATIVE, TEXT, read_sample
from satlisa.data.sampler import IndexedSampler
from satlisa.data.streaming import open_stream
from satlisa.data.survey import describe_tasks, survey
from satlisa.data.synthetic.rows import DemoRows
from tests.helpers.dataset_fixtures import make_row, png, write_parquet


def of_polygons(*polygons: Any, size: tuple[int, int] = (64, 48)) -> list[dict[str, Any]]:
    image = {"bytes": png(size=size), "path": None}
    return [make_row(metadata={"polygons": [polygon]}, image=image) for polygon in polygons]


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[number % 2], "content": text} for number, text in enumerate(texts)]


def test_rows_are_counted_by_kind() -> None:
    rows = [
        make_row(),
        make_row(conversations=turns("Segment the roofs", "Here.", "How many?", "Two.")),
        make_row("captioning", metadata=""),
        make_row(answer="None.", metadata={"polygons": []}),
        make_row(metadata=""),
        make_row(metadata="nan"),
        make_row(image={"bytes": None, "path": "/nowhere/a.png"}),
    ]
    found = survey(IndexedSampler(rows))
    assert found.kinds == {MASKS: 2, TEXT: 1, NEGATIVE: 1, BARE: 1}
    assert (found.answers, found.errors) == ([2], 2)
    assert found.line() == (
        "of 7 rows looked at: 2 mask rows, 1 text rows, 1 negatives, 1 rows of segmentation tasks without geometry, "
        "2 that cannot be used; 1 have several answers, 2 in all, each supervised"
    )
    errors, bare = found.warnings()
    assert errors.startswith("2 of the rows looked at cannot be used; the first: row 5: `metadata` is not JSON")
    assert bare.startswith("1 rows of segmentation tasks have neither masks nor")


def test_few_rows_of_a_large_split_are_read() -> None:
    class Rows(list[Any]):
        taken = 0

        def __getitem__(self, index: Any) -> Any:
            if isinstance(index, str):
                raise TypeError("rows are read by number")
            Rows.taken += 1
            return make_row()

        def __len__(self) -> int:
            return 1_000_000

    assert survey(IndexedSampler(Rows())).kinds[MASKS] == 1000 and Rows.taken < 1100


def test_no_image_is_decoded() -> None:
    cut = {"bytes": png()[:50], "path": None}  # its header says how large it is
    assert survey(IndexedSampler([make_row(image=cut)])).errors == 0


def test_few_images_of_the_demo_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(DemoRows, "_picture", lambda self, seed: drawn.append(seed) or png())
    assert sum(survey(IndexedSampler(load_rows("demo", "train"))).kinds.values()) == 1000
    assert len(drawn) <= 32


def test_streams_and_tables_are_alike(tmp_path: Path, own_cache: None) -> None:
    write_parquet(tmp_path / "set", {"train": 3})
    indexed = IndexedSampler(load_rows(str(tmp_path / "set"), "train"))
    assert survey(indexed) == survey(open_stream(str(tmp_path / "set"), "train"))


SMALL = [[5, 5], [40, 5], [40, 40]]
HALF = [[0, 0], [0.5, 0], [0.5, 0.5]]
UNIT = [[0, 0], [1, 0], [1, 1], [0, 1]]
LARGE = [[100, 100], [900, 100], [900, 900]]


@pytest.mark.parametrize(
    ("rows", "units"),
    [
        (of_polygons(SMALL, SMALL), "percents"),
        (of_polygons([[100, 100], [120, 100], [120, 120]], SMALL, size=(128, 128)), "pixels"),
        (of_polygons([[1500, 100], [1900, 100], [1900, 1500]], LARGE, size=(2000, 1600)), "pixels"),
        (of_polygons(LARGE, SMALL), ""),
        (of_polygons(LARGE, LARGE, LARGE, size=(1200, 1200)), ""),  # thousandths are as many as its pixels
        (of_polygons(HALF, HALF, UNIT), ""),
        (of_polygons(SMALL, size=(500, 500))[:1], ""),  # one small polygon is no dataset of pixels
    ],
)
def test_units_that_look_wrong(rows: list[dict[str, Any]], units: str) -> None:
    found = survey(IndexedSampler(rows))
    assert found.units == units
    assert any(f"look like {units}" in line for line in found.warnings()) == bool(units)


def test_coordinates_below_zero_are_warned_about() -> None:
    found = survey(
        IndexedSampler(of_polygons([[-500, -500], [500, -500], [500, 500]], [[-4, 5], [500, 5], [500, 500]]))
    )
    assert found.below_zero == 1 and any("1 rows have coordinates below 0" in line for line in found.warnings())
    half = survey(IndexedSampler(of_polygons([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5]])))
    assert half.below_zero == 1


def test_the_unit_square_is_what_its_dataset_says() -> None:
    """Whole numbers from 0 to 1: the whole image among fractions, hardly a pixel among thousandths."""
    for others, fractions in (([HALF, HALF], True), ([LARGE, LARGE], False), ([], True)):
        found = survey(IndexedSampler(of_polygons(UNIT, *others)))
        assert found.fractions == fractions
    (unit,) = of_polygons(UNIT)
    (region,) = read_sample(unit, 0, fractions=True).regions
    assert region[0].tolist() == UNIT
    assert read_sample(unit, 0).regions[0][0].max() == 0.001
    (large,) = of_polygons(LARGE)
    assert read_sample(large, 0, fractions=True).regions[0][0].max() == 0.9


def test_tasks_in_words() -> None:
    assert describe_tasks(["b", "a", "b"]) == "b 2, a 1"
    assert describe_tasks([str(number) for number in range(14)]).endswith(", and 2 more tasks")
