"""The page as a Hugging Face Space: a folder with the package's code, `app.py`, `requirements.txt` and `README.md`."""

import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import satlisa
from satlisa.config import DEFAULT_CONFIG
from satlisa.errors import SatlisaError
from satlisa.runtime.atomic_files import atomic_replace
from satlisa.runtime.locations import existing_folder, is_hub_id
from satlisa.web.limits import Limits

_REQUIREMENTS = ("requirements.txt", "requirements-geo.txt", "requirements-web.txt")
_GRADIO = "6.31.0"  # where none is installed
_APP = '''"""The page as a Space."""

from satlisa.inference.api import load_model
from satlisa.web.limits import Limits
from satlisa.web.serving import serve

MODEL_ID = {model!r}
LIMITS = {limits!r}


def main() -> None:
    serve(load_model(MODEL_ID), LIMITS, "0.0.0.0", 7860)


if __name__ == "__main__":
    main()
'''
_README = """---
title: satlisa
emoji: 🛰️
colorFrom: blue
colorTo: green
sdk: gradio
sdk_version: {gradio}
python_version: "3.12"
app_file: app.py
models:
  - {model}
short_description: Ask about satellite images, in text and masks
pinned: false
---

# satlisa

Ask [{model}](https://huggingface.co/{model}) about a satellite image. Answers are text, and masks where objects are.

`app.py` starts the page; the model's id and the limits are in there.
"""


def write_space(out: Path, model: str, limits: Limits) -> None:
    """Write the folder.

    Raises:
        SatlisaError: the folder exists and is not empty, the model is no hub id, or the package was installed without
            its requirements files.
    """
    if existing_folder(model) is not None or not (is_hub_id(model) and "/" in model):
        raise SatlisaError(
            f"--model_dir {model}: a Space loads its model from the hub; publish the folder first "
            "(python -m satlisa.publish) and give its id, owner/name"
        )
    out = out.expanduser()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SatlisaError(f"--space {out}: exists already and is not empty; name a new folder")
    package = Path(satlisa.__file__).parent
    missing = [name for name in _REQUIREMENTS if not (package.parent / name).is_file()]
    if missing:
        raise SatlisaError(f"{missing[0]} does not lie beside the package; run --space in a clone of the repository")
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic_replace(out, lambda folder: _write(folder, package, model, limits))
    print(f"wrote {out}; push it to a Space: hf upload owner/space {out} --repo-type space")


def _write(folder: Path, package: Path, model: str, limits: Limits) -> None:
    shutil.copytree(package, folder / "satlisa", ignore=shutil.ignore_patterns("__pycache__", "*.pyc", ".*"))
    shutil.copy(DEFAULT_CONFIG, folder / "satlisa" / "model_config.json")
    requirements = [(package.parent / name).read_text(encoding="utf-8") for name in _REQUIREMENTS]
    texts = {
        "app.py": _APP.format(model=model, limits=limits),
        "README.md": _README.format(model=model, gradio=_gradio_version()),
        "requirements.txt": "".join(requirements),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def _gradio_version() -> str:
    try:
        return version("gradio")
    except PackageNotFoundError:
        return _GRADIO
