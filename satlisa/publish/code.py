"""The code beside the model (`--with_code`): a downloaded repository then answers by itself."""

from pathlib import Path

import satlisa
from satlisa.config import DEFAULT_CONFIG
from satlisa.errors import SatlisaError
from satlisa.publish.local_paths import Files

_PACKAGE = Path(satlisa.__file__).parent
_BESIDE = ("inference.py", "requirements.txt")
_KINDS = (".py", ".md", ".json", ".typed")
_DEMO_WEIGHTS = "demo/weights"


def code_files(*, with_demo: bool) -> Files:
    """inference.py, requirements.txt and the package.

    Args:
        with_demo: also the packaged demo models (9 MB), which a model trained on them needs.

    Raises:
        SatlisaError: satlisa is installed without the files that lie beside it in its repository.
    """
    root = _PACKAGE.parent
    if missing := [name for name in _BESIDE if not (root / name).is_file()]:
        raise SatlisaError(
            f"--with_code: {root} has no {' and no '.join(missing)}; run this in a checkout of satlisa's repository"
        )
    files: Files = {name: root / name for name in _BESIDE}
    for path in sorted(_PACKAGE.rglob("*")):
        name = path.relative_to(_PACKAGE).as_posix()
        is_demo = name.startswith(_DEMO_WEIGHTS)
        if path.is_file() and "__pycache__" not in path.parts and (with_demo if is_demo else path.suffix in _KINDS):
            files[f"satlisa/{name}"] = path
    # The model's own model_config.json lies where a checkout has the defaults of a training.
    return files | {"satlisa/model_config.json": DEFAULT_CONFIG}
