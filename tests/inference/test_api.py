"""inference.py as its users meet it: from a notebook by file path, and from the command line."""

import importlib.util
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from satlisa.cli import inference as cli
from satlisa.config import ModelConfig
from satlisa.inference import api as answers
from satlisa.pretrained.model_directory import save_model
from tests.helpers.model_fixtures import make_model, picture
from tests.helpers.paths import ROOT


@pytest.fixture(scope="module")
def model_dirs(tiny_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two model directories: one answers `<SEG>` again and again, one never does."""
    folder = tmp_path_factory.mktemp("models")
    for name, sign in (("masks", 1.0), ("text", -1.0)):
        model = make_model(tiny_config)
        with torch.no_grad():
            image = cli.open_image(picture(50, 40))
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


def test_python_interface(model_dirs: dict[str, Path]) -> None:
    image = picture(50, 40)
    model = answers.load_model(model_dir=model_dirs["masks"], device="cpu")
    text, mask = answers.generate_segmentation(model, image, "Segment", max_new_tokens=3)
    assert text.startswith("<SEG>") and mask is not None
    assert mask.mode == "L" and mask.size == (50, 40) and set(np.unique(mask)) <= {0, 255}
    assert answers.generate_text(model, image, "Segment", max_new_tokens=3) == text
    same, instances = answers.generate_instances(model, image, "Segment", max_new_tokens=3)
    assert same == text and len(instances) == text.count("<SEG>")
    union = np.max([np.asarray(m) for m, _ in instances], axis=0)
    assert np.array_equal(union, np.asarray(mask)) and all(isinstance(score, float) for _, score in instances)
    plain = answers.load_model(model_dirs["text"], "cpu")
    text, mask = answers.generate_segmentation(plain, image, "Segment", max_new_tokens=3)
    assert "<SEG>" not in text and mask is None


def test_images_in_any_form(model_dirs: dict[str, Path], tmp_path: Path) -> None:
    image = picture(50, 40)
    image.save(tmp_path / "a.png")
    model = answers.load_model(model_dirs["masks"], "cpu")
    forms = [image, tmp_path / "a.png", str(tmp_path / "a.png"), (tmp_path / "a.png").read_bytes()]
    assert len({answers.generate_text(model, form, "Segment", max_new_tokens=4) for form in forms}) == 1


def test_a_client_loads_it_by_path_from_elsewhere_offline(model_dirs: dict[str, Path], tmp_path: Path) -> None:
    client = tmp_path / "client.py"
    client.write_text(
        textwrap.dedent(
            f"""
            import importlib.util, os
            os.environ["HF_HUB_OFFLINE"] = "1"
            spec = importlib.util.spec_from_file_location("sat_inference", {str(ROOT / "inference.py")!r})
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            from PIL import Image
            model = module.load_model(model_dir={str(model_dirs["masks"])!r}, device="cpu")
            image = Image.effect_noise((50, 40), 80).convert("RGB")
            print(repr(module.generate_text(model, image, "What is this?", max_new_tokens=32)))
            text, mask = module.generate_segmentation(model, image, "Segment the buildings", max_new_tokens=32)
            assert (mask is not None) == ("<SEG>" in text)
            print("client done")
            """
        )
    )
    done = subprocess.run(
        [sys.executable, str(client)], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0 and done.stdout.endswith("client done\n"), done.stderr


def test_module_exports() -> None:
    spec = importlib.util.spec_from_file_location("by_path", ROOT / "inference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert {"load_model", "generate_text", "generate_segmentation", "generate_instances"} <= set(vars(module))


@pytest.fixture
def image_file(tmp_path: Path) -> Path:
    picture(50, 40).save(tmp_path / "sat.png")
    return tmp_path / "sat.png"


def command(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def test_command_writes_masks(
    model_dirs: dict[str, Path], image_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["--model_dir", model_dirs["masks"], "--image", image_file, "--device", "cpu", "--max_new_tokens", 3]
    outputs = [
        "--output_mask",
        tmp_path / "m.png",
        "--overlay",
        tmp_path / "o.png",
        "--output_instances",
        tmp_path / "i",
    ]
    assert command(*base, "--prompt", "Segment", *outputs) == 0
    text = capsys.readouterr().out.strip()
    assert "<SEG>" in text
    with Image.open(tmp_path / "m.png") as mask, Image.open(tmp_path / "o.png") as drawn:
        assert mask.mode == "L" and mask.size == drawn.size == (50, 40)
    names = sorted(path.name for path in (tmp_path / "i").iterdir())
    assert names == [f"instance_{n:03d}.png" for n in range(text.count("<SEG>"))]
    assert not list(tmp_path.rglob("*partial*"))


def test_command_without_seg_writes_nothing_and_exits_1(
    model_dirs: dict[str, Path], image_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["--model_dir", model_dirs["text"], "--image", image_file, "--device", "cpu", "--max_new_tokens", 3]
    assert command(*base, "--prompt", "Segment", "--output_mask", tmp_path / "m.png") == 1
    assert "no <SEG>" in capsys.readouterr().err and not (tmp_path / "m.png").exists()
    assert command(*base, "--prompt", "What is it?") == 0


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


def test_images_that_cannot_be_read(ask: Callable[..., str], tmp_path: Path, model_must_not_load: None) -> None:
    assert "missing.png: no such file" in ask(image="missing.png")
    assert f"{tmp_path}: expected a file, found a folder" in ask(image=tmp_path)
    (tmp_path / "text.png").write_text("no image")
    assert "text.png is not an image" in ask(image=tmp_path / "text.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "sat.png").read_bytes()[:500])
    assert "half.png cannot be read" in ask(image=tmp_path / "half.png")


def test_model_directories_that_are_none(ask: Callable[..., str], image_file: Path, tmp_path: Path) -> None:
    assert "./missing: no such model directory" in ask(model_dir="./missing")
    assert "no such model directory" in ask(model_dir=image_file)
    (tmp_path / "empty").mkdir()
    assert "model_config.json, vlm_lora, seg_projector.pt, sam_mask_decoder.pt missing (found: nothing)" in ask(
        model_dir=tmp_path / "empty"
    )


def test_prompts_and_devices(ask: Callable[..., str]) -> None:
    assert "prompt: expected text" in ask(prompt=" ")
    assert "cuda:9" in ask(device="cuda:9")


def test_debug_shows_the_traceback(image_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--debug", "--model_dir", "./missing", "--image", image_file, "--prompt", "x") == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--mask", "m.png"], "the following arguments are required: --model_dir, --image, --prompt"),
        (["--model_dir", "d", "--image", "i", "--prompt", "p", "--mask", "m"], "unrecognized arguments: --mask m"),
        (["--max_new_tokens", "0"], "argument --max_new_tokens: expected a positive integer, found '0'"),
    ],
)
def test_unknown_options(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert said in refused(capsys, int(str(left.value.code)))


@pytest.mark.parametrize("option", ["output_mask", "overlay"])
def test_pictures_that_cannot_be_written(
    option: str, ask: Callable[..., str], tmp_path: Path, image_file: Path, model_must_not_load: None
) -> None:
    """Below a file: permission bits would not hold for root, who runs the tests of some machines."""
    (tmp_path / "file").write_text("x")
    assert f"--{option}: expected a folder at {tmp_path / 'file'}" in ask(**{option: tmp_path / "file" / "a" / "m.png"})
    assert f"--{option}: {tmp_path} is a folder" in ask(**{option: tmp_path})
    assert "pictures are not written as '.strange'" in ask(**{option: tmp_path / "m.strange"})
    assert "pictures are not written as ''" in ask(**{option: tmp_path / "mask"})
    assert "is the file of --image too" in ask(**{option: tmp_path / "." / "sat.png"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "sat.png"]


def test_one_file_for_two_pictures(ask: Callable[..., str], tmp_path: Path, model_must_not_load: None) -> None:
    assert "is the file of --output_mask too" in ask(output_mask=tmp_path / "m.png", overlay=tmp_path / "m.png")


def test_a_folder_of_instances_that_cannot_be_made(
    ask: Callable[..., str], tmp_path: Path, model_must_not_load: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    assert "--output_instances: expected a folder" in ask(output_instances=tmp_path / "file")
    monkeypatch.setattr(os, "access", lambda place, _: Path(place) != tmp_path)
    assert f"--output_instances: {tmp_path} cannot be written;" in ask(output_instances=tmp_path / "new")


def test_a_failed_write_leaves_the_old_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture(4, 4).save(tmp_path / "m.png")

    def fill_the_disk(image: Image.Image, path: Path, *_: object) -> None:
        path.write_bytes(b"\x89PNG half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fill_the_disk)
    with pytest.raises(cli.SatlisaError, match=r"m\.png: cannot be written .*No space left"):
        cli._save(picture(8, 8), tmp_path / "m.png")
    with Image.open(tmp_path / "m.png") as kept:
        assert kept.size == (4, 4)
    assert not list(tmp_path.glob("*partial*"))


def test_help_is_quick_and_lists_options() -> None:
    done = subprocess.run(
        [sys.executable, "inference.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True, env=os.environ
    )
    for option in ("--model_dir", "--output_mask", "--output_instances", "--overlay", "--max_new_tokens", "--device"):
        assert option in done.stdout
