"""Two saved models, an image, and the command that asks one about the other."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from satlisa.cli import inference as cli
from satlisa.config import ModelConfig
from satlisa.data.images import open_image
from satlisa.inference import api as answers
from satlisa.pretrained.model_directory import save_model
from tests.helpers.model_fixtures import make_model, picture


@pytest.fixture(scope="session")
def model_dirs(tiny_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two model directories: one answers `<SEG>` again and again, one never does."""
    folder = tmp_path_factory.mktemp("models")
    for name, sign in (("masks", 1.0), ("text", -1.0)):
        model = make_model(tiny_config)
        with torch.no_grad():
            image = open_image(picture(50, 40))
            hidden = _first_hidden(model, image)
            model.seg_row.copy_(sign * 20 * hidden / hidden.norm())
        save_model(model, folder / name)
    return {"masks": folder / "masks", "text": folder / "text"}


def _first_hidden(model, image: Image.Image) -> torch.Tensor:  # type: ignore[no-untyped-def]
    """The state that predicts the first token: a `<SEG>` row along it makes `<SEG>` the answer."""
    from satlisa.processing.chat import as_turns, encode_prompt

    prompt = encode_prompt(model.processor, as_turns("Segment"), image)
    images = model.image_features(prompt.pixel_values, prompt.image_grid_thw)
    embeddings = model.embed(prompt.input_ids[None], images)
    mask = torch.ones_like(prompt.input_ids)[None]
    return model.run_text(embeddings, mask, prompt.position_ids[:, None])[0, -1]


@pytest.fixture
def image_file(tmp_path: Path) -> Path:
    picture(50, 40).save(tmp_path / "sat.png")
    return tmp_path / "sat.png"


def command(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def refused(capsys: pytest.CaptureFixture[str], code: int) -> str:
    """The line that a mistake is told in; nothing else may be on stderr."""
    streams = capsys.readouterr()
    assert code == 2 and streams.out == ""
    assert streams.err.startswith("inference.py: ") and streams.err.count("\n") == 1, streams.err
    return streams.err


@pytest.fixture
def ask(model_dirs: dict[str, Path], image_file: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Ask with one thing wrong; returns the line that says so."""

    def run(**changes: object) -> str:
        options = {"model_dir": model_dirs["masks"], "image": image_file, "prompt": "Segment", "device": "cpu"}
        pairs = [(f"--{name}", value) for name, value in (options | {"max_new_tokens": 2} | changes).items()]
        capsys.readouterr()
        return refused(capsys, command(*[part for pair in pairs for part in pair]))

    return run


@pytest.fixture
def model_must_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """For mistakes that are found before the minute that a real model takes."""

    def load(*_: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(answers, "load_model", load)
