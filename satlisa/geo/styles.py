"""QGIS styles (`.qml`) beside masks and vectors: QGIS takes the style of the file's own name by itself."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from satlisa.errors import SatlisaError
from satlisa.runtime.atomic_files import atomic_write

_COLOURS = (
    "228,26,28",
    "55,126,184",
    "77,175,74",
    "152,78,163",
    "255,127,0",
    "166,86,40",
    "247,129,191",
    "153,153,153",
)
_MOST = 200  # answers with a colour of their own


def style_paths(outputs: Sequence[Path]) -> list[Path]:
    """The style of each output.

    Raises:
        SatlisaError: two outputs would have the same one.
    """
    paths = [path.with_suffix(".qml") for path in outputs]
    if len(set(paths)) < len(paths):
        raise SatlisaError(f"--style: {paths[0].name} would be the style of two outputs; give them different names")
    return paths


def write_mask_style(path: Path, name: str) -> None:
    """The mask's value 1 in orange, 0 transparent."""
    entries = (
        '<paletteEntry value="0" color="#000000" alpha="0" label="other"/>'
        f'<paletteEntry value="1" color="#ff8c00" alpha="160" label="{_text(name)}"/>'
    )
    _write_raster(path, f'<rasterrenderer type="paletted" band="1" opacity="1"><colorPalette>{entries}</colorPalette>')


def write_probability_style(path: Path) -> None:
    """From transparent at 0 to orange at 1."""
    items = "".join(
        f'<item value="{value}" color="#ff8c00" alpha="{int(255 * value)}" label="{value}"/>'
        for value in (0.0, 0.25, 0.5, 0.75, 1.0)
    )
    shader = (
        '<rastershader><colorrampshader colorRampType="INTERPOLATED" classificationMode="1" clip="0" '
        f'minimumValue="0" maximumValue="1">{items}</colorrampshader></rastershader>'
    )
    _write_raster(path, f'<rasterrenderer type="singlebandpseudocolor" band="1" opacity="1">{shader}')


def write_vector_style(path: Path, answers: Sequence[str], *, by_answer: bool) -> None:
    """Outlines of objects in orange, or a colour for each answer, the most frequent ones first."""
    if not by_answer:
        renderer = f'<renderer-v2 type="singleSymbol"><symbols>{_symbol(0, "255,140,0")}</symbols></renderer-v2>'
    else:
        kept = list(answers)[:_MOST]
        categories = "".join(
            f'<category value="{_text(answer)}" label="{_text(answer)}" symbol="{number}" render="true"/>'
            for number, answer in enumerate(kept)
        )
        symbols = "".join(_symbol(number, _COLOURS[number % len(_COLOURS)]) for number in range(len(kept)))
        renderer = (
            f'<renderer-v2 type="categorizedSymbol" attr="answer"><categories>{categories}</categories>'
            f"<symbols>{symbols}</symbols></renderer-v2>"
        )
    _write(path, f"{renderer}<layerGeometryType>2</layerGeometryType>")


def _symbol(number: int, colour: str) -> str:
    options = {"color": f"{colour},90", "outline_color": f"{colour},255", "outline_width": "0.4", "style": "solid"}
    entries = "".join(f'<Option type="QString" name="{key}" value="{value}"/>' for key, value in options.items())
    return (
        f'<symbol type="fill" name="{number}" alpha="1"><layer class="SimpleFill" enabled="1">'
        f'<Option type="Map">{entries}</Option></layer></symbol>'
    )


def _write_raster(path: Path, renderer: str) -> None:
    _write(path, f"<pipe>{renderer}</rasterrenderer></pipe>")


def _write(path: Path, body: str) -> None:
    head = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
    atomic_write(path, f'{head}<qgis version="3.28">{body}</qgis>\n'.encode())


def _text(text: str) -> str:
    """Text of an XML attribute; control characters, which XML has no place for, become spaces."""
    return escape("".join(letter if letter.isprintable() else " " for letter in text))
