"""inference.py as its users meet it: from a notebook by file path, and from the command line."""

import importlib.util
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from satlisa.errors import SatlisaError
from satlisa.inference import api as answers
from satlisa.inference.generation import Answer
from tests.helpers.model_fixtures import picture
from tests.helpers.paths import ROOT


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


def test_streams_and_whole_answers(model_dirs: dict[str, Path], tmp_path: Path) -> None:
    image = picture(50, 40)
    model = answers.load_model(model_dirs["masks"], "cpu")
    whole = answers.ask(model, image, "Segment", max_new_tokens=4)
    assert list(answers.stream_text(model, image, "Segment", max_new_tokens=4))[-1] == whole.text
    assert whole.num_segs == 4 and whole.image is not None and whole.image.size == (50, 40)
    drawn = [answers.generate_text(model, image, "Segment", 6, temperature=50.0, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    with pytest.raises(SatlisaError, match="temperature"):
        answers.generate_segmentation(model, image, "Segment", temperature=-1.0)
    with pytest.raises(SatlisaError, match=r"none\.png"):
        answers.stream_text(model, tmp_path / "none.png", "Segment")


def test_images_in_any_form(model_dirs: dict[str, Path], tmp_path: Path) -> None:
    image = picture(50, 40)
    image.save(tmp_path / "a.png")
    model = answers.load_model(model_dirs["masks"], "cpu")
    forms = [image, tmp_path / "a.png", str(tmp_path / "a.png"), (tmp_path / "a.png").read_bytes()]
    assert len({answers.generate_text(model, form, "Segment", max_new_tokens=4) for form in forms}) == 1


def test_masks_fit_the_file_that_was_given(model_dirs: dict[str, Path], tmp_path: Path) -> None:
    """A photo that EXIF turns: the model sees it upright, the mask lies on the stored pixels."""
    upright = picture(50, 40)
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    model = answers.load_model(model_dirs["masks"], "cpu")
    _, expected = answers.generate_segmentation(model, upright, "Segment", max_new_tokens=2)
    with Image.open(tmp_path / "turned.png") as lazy:
        for source in (tmp_path / "turned.png", (tmp_path / "turned.png").read_bytes(), lazy):
            _, mask = answers.generate_segmentation(model, source, "Segment", max_new_tokens=2)
            _, instances = answers.generate_instances(model, source, "Segment", max_new_tokens=2)
            assert mask is not None and expected is not None and mask.size == lazy.size == (40, 50)
            assert np.array_equal(np.rot90(np.asarray(expected)), np.asarray(mask))
            assert all(instance.size == lazy.size for instance, _ in instances)


def test_loading_is_quiet_and_devices_are_named_as_torch_names_them(
    model_dirs: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    for device in ("cpu:0", torch.device("cpu"), "cpu"):
        assert answers.load_model(model_dirs["text"], device).device == torch.device("cpu")
    assert capfd.readouterr() == ("", "")
    with pytest.raises(SatlisaError, match="device: '7' requested"):
        answers.load_model(model_dirs["text"], 7)


def an_answer(text: str, *areas: int) -> Answer:
    masks = np.zeros((len(areas), 8, 8), dtype=bool)
    for mask, area in zip(masks, areas, strict=True):
        mask.flat[:area] = True
    return Answer(text, masks, np.ones(len(areas), dtype=np.float32), [])


@pytest.mark.parametrize(
    ("found", "side", "said"),
    [
        (an_answer("Here they are. <SEG>", 5), 256, []),
        (an_answer("Here they are. <SEG>", 0), 256, ["the mask is empty"]),
        (an_answer("Two. <SEG> <SEG>", 0, 0), 256, ["2 of 2 masks are empty"]),
        (an_answer("<SEG> <SEG>", 0, 9), 300, ["1 of 2 masks are empty", "reduced 1.2-fold"]),
        (an_answer("<SEG>", 0), 2048, ["the mask is empty", r"2,048 × 100 pixels .* reduced 8.0-fold .* 256 × 256"]),
        (an_answer("<SEG>", 9), 1024, []),
        (an_answer("No buildings."), 2048, ["reduced 8.0-fold"]),
        (an_answer("I found 6 buildings. <SEG> <SEG> <SEG> <SEG>", 1, 1, 1, 1), 9, ["names 6 objects and has 4 masks"]),
        (an_answer("I found six buildings. <SEG> <SEG>", 1, 1), 9, ["names 6 objects and has 2 masks"]),
        (an_answer("I found 1 building and 1 plane. <SEG> <SEG>", 1, 1), 9, []),
        (an_answer("I found 2 buildings and 3 roads. <SEG> <SEG>", 1, 1), 9, []),
        (an_answer("I segmented 6 buildings in the image. <SEG>", 1), 9, []),  # one mask of all of them
        (an_answer("Boxes [10, 20, 30, 40]. <SEG> <SEG>", 1, 1), 9, []),
    ],
)
def test_doubts_about_an_answer_are_said(found: Answer, side: int, said: list[str]) -> None:
    lines = answers.remarks(found, (side, 100 if side > 100 else side), 256)
    assert len(lines) == len(said)
    for line, expected in zip(lines, said, strict=True):
        assert re.search(expected, line)


def test_doubts_reach_the_log(model_dirs: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    model = answers.load_model(model_dirs["masks"], "cpu")
    answers.generate_segmentation(model, picture(40 * model.segmenter.inputs.image_size, 60), "Segment", 2)
    assert "reduced 40.0-fold" in caplog.text


@pytest.mark.integration
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
