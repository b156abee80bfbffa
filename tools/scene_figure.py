"""The picture of docs/scenes.md: the demo scene, its mask over it, and its vectors alone, by a trained model.

    python -m tools.scene_figure demo_model docs/scenes.png

It prints the IoU of the mask with the buildings that were drawn.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from PIL import Image, ImageDraw, ImageFont

from satlisa.geo import SceneResult, open_scene, segment_scene
from satlisa.geo.demo_scene import draw_demo_scene
from satlisa.geo.quicklook import quicklook
from satlisa.inference.api import load_model

_SIDE, _GAP, _TITLE = 512, 8, 24  # pixels
PROMPT = "Segment the buildings"


def draw(folder: Path, found: SceneResult) -> Image.Image:
    """Three pictures side by side: scene, mask, vectors."""
    scene = open_scene(folder / "scene.tif")
    pictures = {
        "scene.tif, 2048 px wide": quicklook(scene, None, _SIDE),
        "mask.tif over it": quicklook(scene, folder / "mask.tif", _SIDE),
        f"buildings.gpkg: {len(found.features)} features": draw_vectors(found, ~scene.transform, scene.size[0]),
    }
    canvas = Image.new("RGB", (len(pictures) * (_SIDE + _GAP) - _GAP, _SIDE + _TITLE), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=15)
    for number, (title, picture) in enumerate(pictures.items()):
        pen.text((number * (_SIDE + _GAP), 2), title, fill="black", font=font)
        canvas.paste(picture, (number * (_SIDE + _GAP), _TITLE))
    return canvas


def draw_vectors(found: SceneResult, to_grid: rasterio.Affine, side: int) -> Image.Image:
    """Features from their coordinates alone."""
    picture = Image.new("RGB", (_SIDE, _SIDE), (245, 245, 245))
    pen = ImageDraw.Draw(picture)
    a, b, c, d, e, f = tuple(to_grid)[:6]
    for feature in found.features:
        for part in getattr(feature.geometry, "geoms", [feature.geometry]):
            points = shapely.get_coordinates(part.exterior) @ np.array([[a, d], [b, e]]) + (c, f)
            pen.polygon([tuple(point) for point in points * _SIDE / side], fill=(255, 208, 150), outline=(200, 90, 0))
    return picture


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_dir", help="a model that train.py wrote with PRESET=demo")
    parser.add_argument("output", type=Path, help="a .png file")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        truth = draw_demo_scene(folder / "scene.tif")
        files: dict[str, Any] = {"output_mask": folder / "mask.tif", "output_vectors": folder / "buildings.gpkg"}
        found = segment_scene(load_model(options.model_dir), folder / "scene.tif", PROMPT, **files)
        draw(folder, found).quantize(128).save(options.output)
        with rasterio.open(files["output_mask"]) as dataset:
            mask = dataset.read(1) == 1
    print(f"{len(found.features)} features, IoU of the mask {(mask & truth).sum() / (mask | truth).sum():.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
