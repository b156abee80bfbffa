"""Time and memory of scenes: reading, stitching and writing, with a stand-in model or a trained one.

    python -m benchmarks.scenes 5000 10000 20000                  the stand-in: a threshold, next to no time of its own
    python -m benchmarks.scenes 4096 --model_dir demo_model       a trained model, and its share of the time

Each size runs in a process of its own, on one thread of PyTorch; the scene has 3 bands of uint16.
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


def timed(ask: Ask, spent: list[float]) -> Ask:
    """`ask`, and the seconds that it takes."""

    def run(pictures: Sequence[Image.Image], encode: Encode) -> Sequence[Reply]:
        start = time.perf_counter()
        replies = ask(pictures, encode)
        spent.append(time.perf_counter() - start)
        return replies

    return run


def measure(side: int, model_dir: str, folder: str) -> dict[str, Any]:
    """One scene of side² pixels: seconds, the model's share, peak memory in GiB."""
    import torch

    torch.set_num_threads(1)
    scene, ask = Path(folder) / f"{side}.tif", threshold
    if model_dir:
        from satlisa import load_model

        ask = model_asker(load_model(model_dir, "cpu"), "Segment the buildings")  # type: ignore[assignment]
    write_scene(scene, side)
    spent: list[float] = []
    start, cpu = time.perf_counter(), time.process_time()
    found = segment_scene(
        None,
        scene,
        "Segment the buildings",
        ask=timed(ask, spent),
        output_mask=Path(folder) / "mask.tif",
        output_vectors=Path(folder) / "vectors.gpkg",
    )
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    scene.unlink()
    return {
        "side": side,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "model_seconds": round(sum(spent), 1),
        "cpu_seconds_per_megapixel": round(cpu / side**2 * 1e6, 3),
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
        with tempfile.TemporaryDirectory() as folder, context.Pool(1) as pool:
            print(json.dumps(pool.apply(measure, (side, options.model_dir, folder))), flush=True)


if __name__ == "__main__":
    main()
