"""Time and memory of scenes: reading, stitching and writing, with a stand-in model or a trained one.

    python -m benchmarks.scenes 5000 10000 20000                  the stand-in: a threshold, next to no time of its own
    python -m benchmarks.scenes 4096 --model_dir demo_model       a trained model, and its share of the time

Each size runs in a process of its own, on one thread of PyTorch; the scene has 3 bands of uint16. Other jobs change
CPU seconds little. Those of the scene are reading, encoding, the journal, stitching, polygons and writing.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from PIL import Image
from rasterio.transform import from_origin
from rasterio.windows import Window

from satlisa.geo import segment_scene
from satlisa.geo.answers import Ask, Encode, Reply, model_asker

_TILE = 500


def write_scene(path: Path, side: int) -> None:
    """Squares of 3 brightnesses and a noise of 40 levels, (3, side, side) uint16."""
    rng = np.random.default_rng(0)
    ground = rng.integers(400, 440, (3, _TILE, _TILE)).astype(np.uint16)
    for number in range(12):
        top, left = rng.integers(0, _TILE - 60, 2)
        ground[:, top : top + 45, left : left + 55] += np.uint16(900 + 300 * (number % 3))
    options = dict(driver="GTiff", width=side, height=side, count=3, dtype="uint16", tiled=True, compress="deflate")
    place = {"crs": "EPSG:32645", "transform": from_origin(300_000, 3_000_000, 0.5, 0.5)}
    with rasterio.open(path, "w", zlevel=1, bigtiff="if_safer", **place, **options) as dataset:
        for top in range(0, side, _TILE):
            rows = np.tile(ground, (1, 1, side // _TILE + 1))[:, : min(_TILE, side - top), :side]
            dataset.write(rows, window=Window(0, top, side, rows.shape[1]))


def threshold(pictures: Sequence[Image.Image], encode: Encode) -> list[Reply]:
    """The stand-in: bright pixels are the object."""
    return [
        Reply("Bright: <SEG>", [encode(np.asarray(p)[..., 0].astype(np.float32) / 16 - 6)], [0.9]) for p in pictures
    ]


class Clock:
    """A model, and the CPU seconds of its own: without those of `encode`, which are the scene's."""

    def __init__(self, ask: Ask) -> None:
        self._ask, self.seconds = ask, 0.0

    def __call__(self, pictures: Sequence[Image.Image], encode: Encode) -> Sequence[Reply]:
        """Ask, and count."""

        def timed(logits: np.ndarray) -> Any:
            start = time.thread_time()
            try:
                return encode(logits)
            finally:
                self.seconds -= time.thread_time() - start

        start = time.thread_time()
        replies = self._ask(pictures, timed)
        self.seconds += time.thread_time() - start
        return replies


def measure(side: int, model_dir: str, folder: str) -> dict[str, Any]:
    """One scene of side² pixels: seconds, what the scene costs beside the model, peak memory in GiB."""
    import torch

    torch.set_num_threads(1)
    scene, ask = Path(folder) / f"{side}.tif", threshold
    if model_dir:
        from satlisa import load_model

        ask = model_asker(load_model(model_dir, "cpu"), "Segment the buildings")  # type: ignore[assignment]
    clock = Clock(ask)
    start, cpu = time.perf_counter(), time.process_time()
    found = segment_scene(
        None,
        scene,
        "Segment the buildings",
        ask=clock,
        output_mask=Path(folder) / "mask.tif",
        output_vectors=Path(folder) / "vectors.gpkg",
    )
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {
        "side": side,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "model_cpu_seconds": round(clock.seconds, 1),
        "scene_cpu_seconds_per_megapixel": round((cpu - clock.seconds) / side**2 * 1e6, 3),
        "scene_share_of_model": round((cpu - clock.seconds) / clock.seconds, 3) if model_dir else None,
        "features": len(found.features),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def main() -> None:
    """Print one line per size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sides", type=int, nargs="+", help="pixels")
    parser.add_argument("--model_dir", default="", help="a trained model in place of the stand-in")
    options = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    for side in options.sides:
        with tempfile.TemporaryDirectory() as folder:
            for work, *given in (
                (write_scene, Path(folder) / f"{side}.tif", side),
                (measure, side, options.model_dir, folder),
            ):
                with context.Pool(1) as pool:
                    found = pool.apply(work, given)
            print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
