"""Properties that hold for whatever a dataset or a user comes up with, as plain functions: `test_properties.py` calls
them with a few hundred cases, a stress program may call them with as many as it likes."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from satlisa.config import ModelConfig
from satlisa.data.conversations import parse_turns, split_answer, take_coordinates
from satlisa.data.dataset import COLUMNS
from satlisa.data.json_cells import without_surrogates
from satlisa.data.polygons import find_outline, find_regions, holds_coordinates, parse_regions
from satlisa.data.rows import read_sample
from satlisa.data.sample import RowError, Sample
from satlisa.errors import SatlisaError
from satlisa.geometry.raster import coverage, covered_pixels, rasterize
from satlisa.geometry.regions import Region
from satlisa.training.settings import TrainConfig, variables
from tests.helpers.token_checks import Reader, check_tokens

HEIGHT, WIDTH = 30, 40


def check_polygons(value: Any) -> None:
    """Polygons are read and can be drawn, or are a ValueError."""
    holds_coordinates(value)
    find_outline({"here": value})
    for read in (
        parse_regions,
        find_regions,
        lambda v: find_regions({"masks": v}),
    ):
        try:
            regions = read(value)
        except ValueError as error:
            assert str(error)
            continue
        check_regions(regions)


def check_regions(regions: list[Region]) -> None:
    """Regions are finite, and what they draw is inside the frame and around their own corners."""
    counts = covered_pixels(regions, HEIGHT, WIDTH)
    assert counts.shape == (len(regions),)
    for region, count in zip(regions, counts, strict=True):
        assert all(ring.dtype == np.float64 and ring.shape[1:] == (2,) and np.isfinite(ring).all() for ring in region)
        mask = rasterize(region, HEIGHT, WIDTH)
        assert mask.shape == (HEIGHT, WIDTH) and mask.dtype == bool and mask.sum() == count
        share = coverage(region, HEIGHT, WIDTH, scale=(WIDTH, HEIGHT), samples=2)
        assert share.min() >= 0 and share.max() <= 1
        if count:
            low, high = (np.concatenate(region).min(axis=0), np.concatenate(region).max(axis=0))
            rows, columns = mask.nonzero()
            for pixels, side, axis in ((columns, WIDTH, 0), (rows, HEIGHT, 1)):
                assert pixels.min() >= low[axis] * side - 1 and pixels.max() + 1 <= high[axis] * side + 1


def check_spellings(polygon: list[tuple[int, int]]) -> None:
    """A polygon draws the same mask in whatever way it is spelled, in metadata and in an answer."""
    pairs = [list(point) for point in polygon]
    flat = [number for point in polygon for number in point]
    keyed = [{"x": x, "y": y} for x, y in polygon]
    expected = rasterize([np.array(polygon) / 1000], HEIGHT, WIDTH)
    ways: list[Any] = [pairs, flat, keyed, polygon, tuple(polygon), np.array(polygon), json.dumps(pairs)]
    ways += [[way] for way in (pairs, flat, keyed)]
    ways += [{"polygon": pairs}, {"segmentation": [flat]}, {"points": keyed}, {"polygon": None, "points": flat}]
    for way in ways:
        for record in ({"polygons": [way]}, {"objects": [way]}, {"masks": [way, None]}, {"instances": [way]}, [way]):
            (region,) = find_regions(record)
            assert np.array_equal(rasterize(region, HEIGHT, WIDTH), expected)
    for spelled in (pairs, [pairs], [flat], keyed, {"polygons": [pairs]}, {"objects": [{"polygon": flat}]}):
        text, (region,) = take_coordinates(f"Here: {json.dumps(spelled)}.")
        assert text == "Here." and np.array_equal(rasterize(region, HEIGHT, WIDTH), expected)


def check_chat(value: Any) -> None:
    """A conversation is read without loss, as text or parsed, or is a ValueError."""
    try:
        turns = parse_turns(value)
    except ValueError as error:
        assert str(error)
        return
    said = value if isinstance(value, list) else json.loads(value)
    expected = ["".join(_texts(turn.get("content", turn.get("value")))) for turn in said]
    kept = [_letters(turn.text) for turn in turns]
    assert [text for text in map(_letters, expected) if text] == [text for text in kept if text]
    assert all(turn.role in ("system", "user", "assistant") and "<image>" not in turn.text for turn in turns)
    try:
        context, answer = split_answer(turns)
    except ValueError as error:
        assert str(error)
        return
    assert context[-1].role == "user" and context[-1].text.strip()
    assert answer in [turn.text for turn in turns if turn.role == "assistant"]


def _texts(content: Any) -> list[str]:
    """What a turn says, written anew: text, a list of parts, a number."""
    if isinstance(content, list):
        return [text for part in content for text in _texts(part.get("text") if isinstance(part, dict) else part)]
    return [] if content is None else [str(content)]


def _letters(text: str) -> str:
    """All but blanks and markers of images."""
    return "".join(without_surrogates(text).replace("<image>", "").split())


def check_answer(text: str) -> None:
    """Coordinates are cut out of an answer without a trace, and no words but `<SEG>` are; or it is a ValueError."""
    try:
        kept, regions = take_coordinates(text)
    except ValueError as error:
        assert str(error)
        return
    check_regions(regions)
    assert "<SEG>" not in kept and kept == kept.strip()
    place = 0
    for letter in filter(str.isalnum, kept):  # in the order in which they were
        place = text.index(letter, place) + 1
    assert not take_coordinates(kept)[1]


def check_row(row: dict[str, Any], reader: Reader) -> None:
    """A row becomes tensors in which nothing is smuggled, or a RowError that names it."""
    try:
        sample = read_sample(row, 7, max_instances=4, seg_tasks=["flood_assessment"])
        encoded = reader.encode(sample)
    except RowError as error:
        assert error.index == 7 and error.column in COLUMNS and error.reason
        assert str(error).isprintable() and len(str(error)) < 400
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
        return
    check_tokens(sample, encoded, reader)
    check_masks(sample)
    "\n".join([sample.answer, *(turn.text for turn in sample.turns)]).encode()  # as a report does


def check_masks(sample: Sample) -> None:
    """The regions draw something, in reading order, and at most as many as asked for."""
    assert len(sample.regions) <= 4 and sample.left_out >= 0
    assert all(covered_pixels(list(sample.regions), 1024, 1024) > 0)
    corners = [np.concatenate(region).min(axis=0)[::-1].tolist() for region in sample.regions]
    assert corners == sorted(corners)


def check_model_config(content: Any, folder: Path) -> None:
    """What a file holds is a SatlisaError, or settings that are the same when they are saved and read again."""
    path, copy = folder / "model_config.json", folder / "copy.json"
    path.write_text(json.dumps(content))
    try:
        config = ModelConfig.from_json(path)
    except SatlisaError as error:
        assert str(path) in str(error)
        return
    config.save(copy)
    assert json.dumps(ModelConfig.from_json(copy).to_dict()) == json.dumps(config.to_dict())
    assert 0 <= config.lora_dropout < 1 and config.max_seq_length > config.max_image_tokens > 0
    weights = (config.text_loss_weight, config.bce_loss_weight, config.dice_loss_weight)
    assert all(0 <= weight <= 1e9 for weight in weights)
    sizes = (config.vlm_hidden_size, config.projector_hidden_size, config.sam_prompt_size, config.lora_r)
    assert all(0 < size < 2**31 for size in (*sizes, config.lora_alpha, config.max_seq_length, config.max_instances))
    assert config.seg_token.strip() and (config.seg_token_id is None or 0 <= config.seg_token_id < 2**31)


def check_environment(environ: dict[str, str]) -> None:
    """Variables are a SatlisaError, or settings within their bounds that say the same when they are given again."""
    try:
        made = TrainConfig.from_env(environ)
    except SatlisaError as error:
        assert any(name in str(error) for name in environ)
        return
    for item in variables():
        value, meta = getattr(made, item.name), item.metadata
        assert type(value) is type(item.default)
        assert value in meta["choices"] or not meta["choices"]
        assert meta["low"] is None or meta["low"] <= value < 2**63
        assert meta["high"] is None or value <= meta["high"]
    again = {item.name.upper(): _spell(getattr(made, item.name)) for item in variables()}
    assert TrainConfig.from_env(again) == made
    resolved = made.resolve(4)
    assert resolved.batch_size > 0 and resolved.grad_accum > 0 and len(made.lines()) == len(variables())
    made.seg_task_names()
    for use in (made.trackers, made.new_model_config):
        try:
            use()
        except SatlisaError as error:
            assert str(error)


def _spell(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else str(value)
