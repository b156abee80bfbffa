"""A run over a scene that kills itself: `python -m tests.helpers.killed_scene SCENE FOLDER MOMENT [--resume]`.

MOMENT is the number of finished windows after which SIGKILL comes, or "mask" or "vectors", while these are written.
"""

import os
import signal
import sys
from pathlib import Path

from satlisa.geo import segment, segment_scene
from tests.helpers.scene_files import see_objects


def _die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run(scene: Path, folder: Path, moment: str = "", resume: bool = False) -> None:
    """One run with all outputs."""
    for name in ("mask", "vectors"):
        if moment == name:
            setattr(segment, {"mask": "write_cog", "vectors": "write_vectors"}[name], _die)
    segment_scene(
        None,
        scene,
        "all",
        ask=see_objects,
        window=64,
        overlap=16,
        batch_size=3,
        resume=resume,
        output_mask=folder / "m.tif",
        output_vectors=folder / "v.gpkg",
        progress=lambda done, total: _die() if moment.isdigit() and done >= int(moment) else None,
    )


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], "--resume" in sys.argv)
