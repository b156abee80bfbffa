"""inference.py as its users meet it: from a notebook by file path, and from the command line."""

import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from model_fixtures import make_model, picture
from PIL import Image

from satlisa import answers
from satlisa.checkpoint import save_model
from satlisa.config import ModelConfig

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def model_dirs(tiny_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two model directories: one answers `<SEG>` again and again, one never does."""
    folder = tmp_path_factory.mktemp("models")
    for name, sign in (("masks", 1.0), ("text", -1.0)):
        model = make_model(tiny_config)
        with torch.no_grad():
            image = answers.open_image(picture(50, 40))
            hidden = _first_hidden(model, image)
            model.seg_row.copy_(sign * 20 * hidden / hidden.norm())
        save_model(model, folder / name)
    return {"masks": folder / "masks", "text": folder / "text"}


def _first_hidden(model, image: Image.Image) -> torch.Tensor:  # type: ignore[no-untyped-def]
    """The state that predicts the first token: a `<SEG>` row along it makes `<SEG>` the answer."""
    from satlisa.prompts import as_turns, encode_prompt

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
        [sys.executable, str(client)], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
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
    return answers.main([str(argument) for argument in arguments])


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--image": "missing.png"}, "missing.png"),
        ({"--model_dir": "./missing"}, "missing"),
        ({"--prompt": " "}, "prompt"),
        ({"--device": "cuda:9"}, "cuda:9"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    model_dirs: dict[str, Path],
    image_file: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, str],
    message: str,
) -> None:
    options = {
        "--model_dir": model_dirs["text"],
        "--image": image_file,
        "--prompt": "What?",
        "--device": "cpu",
    } | change
    assert command(*[part for option in options.items() for part in option]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("inference.py:")]
    assert len(lines) == 1 and message in lines[0]


def test_unwritable_output(model_dirs: dict[str, Path], image_file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    base = ["--model_dir", model_dirs["masks"], "--image", image_file, "--device", "cpu", "--max_new_tokens", 2]
    assert command(*base, "--prompt", "Segment", "--output_mask", tmp_path / "file" / "m.png") == 2
    assert command(*base, "--prompt", "Segment", "--output_mask", tmp_path / "m.strange") == 2


def test_overlay_tints_only_the_mask() -> None:
    image = Image.new("RGB", (8, 8), (10, 20, 30))
    masks = np.zeros((1, 8, 8), dtype=bool)
    masks[0, 2:6, 2:6] = True
    drawn = np.asarray(answers.overlay(image, masks))
    assert (drawn[~masks[0]] == (10, 20, 30)).all() and (drawn[masks[0]] != (10, 20, 30)).any(axis=-1).all()


def test_help_is_quick_and_lists_options() -> None:
    done = subprocess.run(
        [sys.executable, "inference.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True, env=os.environ
    )
    for option in ("--model_dir", "--output_mask", "--output_instances", "--overlay", "--max_new_tokens", "--device"):
        assert option in done.stdout
