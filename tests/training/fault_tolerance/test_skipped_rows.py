"""Skipped rows, counted by reason."""

from satlisa.data.sample import RowError
from satlisa.training.fault_tolerance.skipped_rows import Skips


def test_skips_are_grouped_by_reason() -> None:
    skips = Skips()
    assert (len(skips), skips.summary()) == (0, [])
    skips.add(RowError(4, "image", "cannot be read: image a.png: no such file (here)"))
    for index, start in ((812, "nan"), (5, "{'a"), (17, "x"), (5, "{'a")):  # row 5 again, in the next epoch
        skips.add(RowError(index, "metadata", f"is not JSON (starts with {start!r})"))
    for index in range(20, 32):
        skips.add(RowError(index, "conversations", f"{600 + index} tokens, more than the 512 of max_seq_length"))
    assert len(skips) == 16
    assert skips.summary() == [
        "12 rows skipped: `conversations` 620 tokens, more than the 512 of max_seq_length, and similar "
        "(rows 20, 21, 22, 23, 24, 25, 26, 27, 28, 29 and 2 more)",
        "3 rows skipped: `metadata` is not JSON (rows 5, 17, 812)",
        "1 row skipped: `image` cannot be read: image a.png: no such file (here) (row 4)",
    ]
