"""inference.py as its users meet it: from a notebook by file path, and from the command line."""

import importlib.util
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from satlisa.inference import api as answers
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


def test_images_in_any_form(model_dirs: dict[str, Path], tmp_path: Path) -> None:
    image = picture(50, 40)
    image.save(tmp_path / "a.png")
    model = answers.load_model(model_dirs["masks"], "cpu")
    forms = [image, tmp_path / "a.png", str(tmp_path / "a.png"), (tmp_path / "a.png").read_bytes()]
    assert len({answers.generate_text(model, form, "Segment", max_new_tokens=4) for form in forms}) == 1


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
