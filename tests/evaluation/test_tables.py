"""Tables of cells."""

from satlisa.evaluation.tables import markdown_table, plain_table

ROWS = [["Task", "Score", "A"], ["vqa", "accuracy", "0.5"], ["captions", "f1", "10.25"]]


def test_columns_are_aligned() -> None:
    assert plain_table(ROWS, left=2).splitlines() == [
        "Task      Score         A",
        "vqa       accuracy    0.5",
        "captions  f1        10.25",
    ]
    assert plain_table([["a", "b"], ["cc", ""]]) == "a   b\ncc"


def test_markdown_has_a_rule_below_the_header() -> None:
    assert markdown_table(ROWS, left=2) == [
        "| Task | Score | A |",
        "| --- | --- | ---: |",
        "| vqa | accuracy | 0.5 |",
        "| captions | f1 | 10.25 |",
    ]


def test_what_a_terminal_cannot_show_is_a_question_mark() -> None:
    assert plain_table([["a\nb\x1b[0m\ud800ü"]]) == "a?b?[0m?ü"
