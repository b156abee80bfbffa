"""The demo scene: 2048² pixels in UTM, drawn from seeds; and what stands in it."""

from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from PIL import Image, ImageDraw

from satlisa.data.synthetic.painter import paint
from satlisa.data.synthetic.plan import Plan
from satlisa.data.synthetic.rows import scene_seeds
from satlisa.runtime.atomic_files import atomic_replace

SIDE, TILE = 2048, 512  # pixels of the scene, and of each of the drawn places that it is put together from
CRS = "EPSG:32645"
TRANSFORM = Affine(0.25, 0, 333_000, 0, -0.25, 3_064_000)  # quarter metres, near Kathmandu
_KINDS = ("Residential area", "Industrial area", "River", "Farmland")


def draw_demo_scene(path: Path, side: int = SIDE) -> np.ndarray:
    """Write the scene as a GeoTIFF, 3 bands of 8 bits; returns where its buildings are, (side, side) bool.

    Its places are of the demo's test split: no model was trained on them.

    Args:
        side: pixels, a multiple of `TILE`.
    """
    plans = (plan for plan in map(Plan, scene_seeds("test")) if plan.scene_class in _KINDS and plan.flood is None)
    pixels, truth = np.zeros((side, side, 3), dtype=np.uint8), np.zeros((side, side), dtype=bool)
    for top in range(0, side, TILE):
        for left in range(0, side, TILE):
            plan = next(plans)
            place = slice(top, top + TILE), slice(left, left + TILE)
            pixels[place], truth[place] = np.asarray(paint(plan, TILE)), _buildings(plan)
    options = dict(driver="GTiff", width=side, height=side, count=3, dtype="uint8", crs=CRS, transform=TRANSFORM)
    path.parent.mkdir(parents=True, exist_ok=True)

    def write(temporary: Path) -> None:
        with rasterio.open(temporary, "w", photometric="RGB", tiled=True, compress="deflate", **options) as dataset:
            dataset.write(pixels.transpose(2, 0, 1))

    atomic_replace(path, write)
    return truth


def _buildings(plan: Plan) -> np.ndarray:
    drawn = Image.new("1", (TILE, TILE))
    pen = ImageDraw.Draw(drawn)
    for found in plan.objects:
        if found.label == "building":
            pen.polygon([(x * TILE / 1000, y * TILE / 1000) for x, y in found.polygon], fill=1)
    return np.asarray(drawn)
