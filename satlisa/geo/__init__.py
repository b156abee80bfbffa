"""From a scene to a map: GeoTIFFs of any size → masks, vectors and answers in their own projection.

The extra `geo` (rasterio, shapely, pyogrio, pyproj) is needed here and nowhere else in the package.
"""

from satlisa.errors import SatlisaError

try:
    import pyogrio as _pyogrio  # noqa: F401
    import pyproj as _pyproj  # noqa: F401
    import rasterio as _rasterio  # noqa: F401
    import shapely as _shapely  # noqa: F401
except ImportError as _error:
    raise SatlisaError(
        f"scenes need rasterio, shapely, pyogrio and pyproj ({_error}); install them: bash setup.sh --geo"
    ) from _error

from satlisa.geo.request import SceneResult
from satlisa.geo.scene import Scene, open_scene
from satlisa.geo.segment import ask_scene, segment_scene

__all__ = ["Scene", "SceneResult", "ask_scene", "open_scene", "segment_scene"]
