"""Render synthetic satellite scenes from their plans."""

import numpy as np
from PIL import Image

from satlisa.data.synthetic import structures, terrain
from satlisa.data.synthetic.plan import Plan, Structure
from satlisa.data.synthetic.structures import Canvas, Colour
from satlisa.data.synthetic.terrain import SIDE

_TREES = {
    "Farmland": 12, "Forest": 420, "Residential area": 34, "Industrial area": 6,
    "Airport": 0, "River": 40, "Desert": 0,
}  # fmt: skip
_ROOFS = {
    "house": structures.HOUSE_ROOFS,
    "hall": structures.HALL_ROOFS,
    "barn": structures.BARN_ROOFS,
    "clay": structures.CLAY_ROOFS,
    "plane": structures.TAILS,
}
_HEIGHTS = {"house": 5.0, "hall": 8.0, "barn": 6.0, "clay": 5.0, "plane": 3.0}  # units


def draw_scene(seed: int, size: int = SIDE) -> Image.Image:
    """Draw a scene, `size` pixels square, RGB. The same seed gives the same scene at every size."""
    return paint(Plan(seed), size)


def paint(plan: Plan, size: int = SIDE) -> Image.Image:
    """Render a plan from the ground up: land, water, roads, flood, shadows, trees, structures."""
    rng = np.random.default_rng((plan.seed, 1))
    ground = _ground(rng, plan)
    canvas = Canvas(ground if plan.water is None else terrain.fill_water(rng, ground, plan.water))
    for road in plan.roads:
        if road.surface == "runway":
            structures.draw_apron(canvas, road.ends)
            structures.draw_runway(canvas, road.ends, road.width)
        else:
            structures.draw_road(canvas, road.ends, road.width, paved=road.surface == "paved")
    if plan.flood is not None:
        canvas.cover(terrain.flood_colour(rng), plan.flood)
    if plan.structures:
        canvas.shadows([s.outline for s in plan.structures], [_HEIGHTS[s.kind] for s in plan.structures])
    _plant_trees(rng, plan, canvas)
    for structure in plan.structures:
        _draw_structure(rng, canvas, structure)
    return canvas.finish(rng, size)


def _ground(rng: np.random.Generator, plan: Plan) -> np.ndarray:
    """The land cover of a scene class: (SIDE, SIDE, 3) float32."""
    along = {"Farmland": terrain.farmland, "Industrial area": terrain.concrete, "Desert": terrain.desert}
    if draw := along.get(plan.scene_class):
        return draw(rng, plan.angle)
    return terrain.forest(rng) if plan.scene_class == "Forest" else terrain.grass(rng)


def _plant_trees(rng: np.random.Generator, plan: Plan, canvas: Canvas) -> None:
    """Draw trees where the crown overlaps no water, road or structure; flooded ground counts as free."""
    forest = plan.scene_class == "Forest"
    for centre in rng.uniform(0, SIDE, (_TREES[plan.scene_class], 2)):
        radius = float(rng.uniform(4.5, 9.0) if forest else rng.uniform(3.0, 6.0))
        if plan.is_free(centre, radius + 1):
            structures.draw_tree(canvas, rng, centre, radius)


def _draw_structure(rng: np.random.Generator, canvas: Canvas, structure: Structure) -> None:
    roofs = _ROOFS[structure.kind]
    roof: Colour = roofs[rng.integers(len(roofs))]
    if structure.kind == "plane":
        structures.draw_plane(canvas, structure.outline, roof)
    elif structure.kind in ("house", "barn"):
        structures.draw_gable(canvas, structure.outline, roof)
    else:
        structures.draw_hall(canvas, rng, structure.outline, roof)
