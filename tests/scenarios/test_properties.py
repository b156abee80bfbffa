"""The properties of `properties.py`, each with a hundred cases or two that are the same in every run."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings

from satlisa.config import ModelConfig
from satlisa.errors import SatlisaError
from satlisa.training.settings import variables
from tests.helpers import properties, strategies
from tests.helpers.model_fixtures import make_model
from tests.helpers.token_checks import Reader

pytestmark = pytest.mark.integration


def cases(count: int = 150) -> settings:
    """So many cases, the same ones in every run; as many as SATLISA_CASES says where that is set."""
    return settings(
        max_examples=int(os.environ.get("SATLISA_CASES") or count),
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


@pytest.fixture(scope="module")
def reader(tiny_config: ModelConfig) -> Reader:
    return Reader(make_model(tiny_config))


@cases()
@given(strategies.json_values | strategies.near_polygons())
def test_polygons_of_any_kind(value: Any) -> None:
    properties.check_polygons(value)


@cases(60)
@given(strategies.polygons)
def test_spellings_of_a_polygon(polygon: list[tuple[int, int]]) -> None:
    properties.check_spellings(polygon)


@cases()
@given(strategies.chats)
def test_conversations_of_any_kind(value: Any) -> None:
    properties.check_chat(value)


@cases()
@given(strategies.texts)
def test_answers_of_any_kind(text: str) -> None:
    properties.check_answer(text)


@cases()
@given(row=strategies.rows())
def test_rows_of_any_kind(row: dict[str, Any], reader: Reader) -> None:
    properties.check_row(row, reader)


@cases(200)
@example(content={**ModelConfig().to_dict(), "of_later": "\ud800"})
@given(content=strategies.model_configs(ModelConfig().to_dict()))
def test_model_configs_of_any_kind(content: Any, tmp_path: Path) -> None:
    properties.check_model_config(content, tmp_path)


def test_a_model_config_that_is_nested_thousands_deep(tmp_path: Path) -> None:
    path = tmp_path / "model_config.json"
    path.write_text('{"of_later": ' + "[" * 10_000 + "]" * 10_000 + "}")
    with pytest.raises(SatlisaError, match="not a readable JSON file"):
        ModelConfig.from_json(path)


@cases(200)
@given(environ=strategies.environments([item.name.upper() for item in variables()]))
def test_environments_of_any_kind(environ: dict[str, str]) -> None:
    properties.check_environment(environ)
