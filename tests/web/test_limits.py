import pytest

from satlisa.errors import SatlisaError
from satlisa.web.limits import Limits


def test_pixels() -> None:
    limits = Limits(megapixels=0.01)
    limits.check_pixels(100, 100, "sat.png")
    with pytest.raises(SatlisaError, match=r"sat.png has 101 × 100 pixels, and this page takes at most 0.01 million"):
        limits.check_pixels(101, 100, "sat.png")


@pytest.mark.parametrize("name", ["megabytes", "megapixels", "queue", "minutes", "max_new_tokens"])
def test_nothing_is_unlimited(name: str) -> None:
    with pytest.raises(SatlisaError, match=f"--{name}: expected a number above 0, found 0"):
        Limits(**{name: 0})
