"""Many scenes with one model: a folder or a pattern of files, a record of what is done, errors by name."""

import glob
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from satlisa.errors import SatlisaError
from satlisa.runtime.atomic_files import atomic_write
from satlisa.runtime.fingerprint import Identity

logger = logging.getLogger(__name__)

SUFFIXES = (".tif", ".tiff", ".vrt", ".jp2", ".img")
DONE = "satlisa-scenes.json"


def find_scenes(image: str) -> list[Path] | None:
    """The files of a folder or a pattern, sorted; None where `image` names one file.

    Raises:
        SatlisaError: there are none, or two have one name without its suffix.
    """
    if Path(image).is_dir():
        found = [path for path in sorted(Path(image).iterdir()) if path.suffix.lower() in SUFFIXES]
    elif glob.has_magic(image) and not Path(image).exists():
        found = sorted(Path(name) for name in glob.glob(image, recursive=True) if Path(name).is_file())
    else:
        return None
    if not found:
        raise SatlisaError(f"--image: {image}: no raster files ({', '.join(SUFFIXES)}) there; check folder and pattern")
    stems: dict[str, Path] = {}
    for path in found:
        if (other := stems.setdefault(path.stem, path)) != path:
            raise SatlisaError(f"--image: outputs of {other} and {path} would have one name; rename one of them")
    return found


def output_of(pattern: Path, scene: Path, suffix: str, option: str) -> Path:
    """The output of one scene: `folder/*.gpkg` with the scene's name, or a file with `suffix` in a folder.

    Raises:
        SatlisaError: `pattern` names one file, which all scenes would share.
    """
    if "*" in pattern.name:
        return pattern.with_name(pattern.name.replace("*", scene.stem))
    if pattern.suffix and not pattern.is_dir():
        raise SatlisaError(
            f"{option}: {pattern} would be the output of every scene; name a folder, or {pattern.with_stem('*')}"
        )
    return pattern / f"{scene.stem}{suffix}"


@dataclass
class Done:
    """What earlier runs finished, in a file of the output folder."""

    folder: Path
    entries: dict[str, Identity] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, *, resume: bool) -> "Done":
        """Read the record; empty without `resume`, and where it is damaged."""
        try:
            entries = json.loads((folder / DONE).read_text(encoding="utf-8")) if resume else {}
        except (OSError, ValueError):
            entries = {}
        return cls(folder, entries if isinstance(entries, dict) else {})

    def holds(self, scene: Path, identity: Identity) -> bool:
        """Whether a scene was finished with the same options, and its outputs are still there."""
        entry = self.entries.get(str(scene), {})
        same = entry.get("identity") == json.loads(json.dumps(identity))
        return same and all(Path(path).exists() for path in entry["written"])

    def add(self, scene: Path, identity: Identity, written: Iterable[Path]) -> None:
        """Record a finished scene."""
        self.entries[str(scene)] = {"identity": json.loads(json.dumps(identity)), "written": [str(p) for p in written]}
        self.folder.mkdir(parents=True, exist_ok=True)
        atomic_write(self.folder / DONE, json.dumps(self.entries, indent=1).encode())


def stat_of(path: Path) -> list[int]:
    """What tells a file from a changed one: size and time of change."""
    state = path.stat()
    return [state.st_size, state.st_mtime_ns]


def run_all(scenes: Sequence[Path], work: Callable[[Path], object], step: Callable[[int], None]) -> dict[Path, str]:
    """Work on every scene; returns the errors by file. `step` takes the number of finished scenes."""
    errors: dict[Path, str] = {}
    for number, path in enumerate(scenes, 1):
        try:
            work(path)
        except SatlisaError as error:
            errors[path] = str(error)
            logger.error("%s", error if path.name in str(error) else f"{path.name}: {error}")
        step(number)
    return errors
