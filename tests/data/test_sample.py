"""Row errors."""

import pickle

from satlisa.data.sample import RowError


def test_row_errors_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(RowError(812, "metadata", "is not JSON (starts with 'nan')")))
    assert type(error) is RowError and isinstance(error, ValueError)
    assert str(error) == "row 812: `metadata` is not JSON (starts with 'nan')"
    assert (error.index, error.column, error.reason) == (812, "metadata", "is not JSON (starts with 'nan')")
