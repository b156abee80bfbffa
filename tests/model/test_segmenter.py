"""The mask frame: preprocessing against transformers, and round trips between an image and the frame."""

import numpy as np
import pytest
import torch
from transformers import SamImageProcessor

from satlisa.geometry.frame import Frame
from satlisa.geometry.raster import rasterize
from satlisa.geometry.regions import Region
from satlisa.model.segmenter import restore_logits
from tests.helpers.model_fixtures import SLIMSAM, box


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def star(points: int = 9) -> Region:
    """A star that covers about a fifth of the image."""
    angle = np.arange(2 * points) * np.pi / points
    radius = np.where(np.arange(2 * points) % 2, 0.19, 0.33)
    return (np.stack([0.5 + radius * np.cos(angle), 0.5 + radius * np.sin(angle)], axis=1),)


SHAPES = {
    "middle box": box(0.27, 0.28, 0.71, 0.73),
    "corner box": box(0.553, 0.553, 1.0, 1.0),
    "star": star(),
    "slant": (np.array([[0.1, 0.2], [0.75, 0.05], [0.8, 0.3], [0.2, 0.6]]),),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("width", "height", "least"),
    [(64, 64, 0.97), (512, 384, 0.97), (2149, 1479, 0.97), (37, 900, 0.85), (900, 37, 0.85)],
)
def test_round_trip(shape: str, width: int, height: int, least: float) -> None:
    """Drawn into the frame as training does it, returned as inference does it, compared at the image's own size."""
    frame = Frame((height, width), **SLIMSAM)
    truth = rasterize(SHAPES[shape], height, width)
    assert 0.15 < truth.mean() < 0.26
    logits = torch.from_numpy(frame.draw(SHAPES[shape]) - 0.5)[None]
    returned = restore_logits(logits, frame)[0].numpy() > 0
    assert returned.shape == (height, width)
    assert iou(returned, truth) >= least


def test_logits_of_the_padding_do_not_bleed_into_the_image() -> None:
    frame = Frame((1479, 2149), **SLIMSAM)
    logits = torch.where(torch.from_numpy(frame.valid), 1.0, -1000.0)[None]
    assert (restore_logits(logits, frame) > 0).all()


def test_restore_equals_sams_two_steps_inside() -> None:
    """transformers' `post_process_masks` interpolates twice; on smooth logits both agree away from the border."""
    frame = Frame((384, 512), **SLIMSAM)
    y, x = torch.meshgrid(torch.linspace(-3, 3, 256), torch.linspace(-3, 3, 256), indexing="ij")
    logits = (torch.sin(2 * x) + torch.cos(y))[None]
    sizes = {"original_sizes": [[384, 512]], "reshaped_input_sizes": [[768, 1024]]}
    theirs = SamImageProcessor().post_process_masks([logits[None]], **sizes, binarize=False)[0][0]
    difference = (restore_logits(logits, frame) - theirs).abs()[0, 4:-4, 4:-4]
    assert difference.max() < 2e-3


def test_restore_slices_large_stacks(tiny_model, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    logits = torch.randn(5, 32, 32)
    whole = tiny_model.segmenter.restore(logits, (100, 80))
    monkeypatch.setattr("satlisa.model.segmenter._MAX_PIXELS", 2 * 100 * 80)
    assert np.array_equal(tiny_model.segmenter.restore(logits, (100, 80)), whole)
    assert tiny_model.segmenter.restore(logits[:0], (100, 80)).shape == (0, 100, 80)


def test_the_union_needs_no_stack_of_masks(tiny_model, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    logits = torch.randn(5, 32, 32)
    whole = tiny_model.segmenter.restore(logits, (100, 80))
    monkeypatch.setattr("satlisa.model.segmenter._MAX_PIXELS", 2 * 100 * 80)
    union = tiny_model.segmenter.restore(logits, (100, 80), only_union=True)
    assert union.shape == (1, 100, 80) and np.array_equal(union[0], whole.any(axis=0))
    assert tiny_model.segmenter.restore(logits[:0], (100, 80), only_union=True).shape == (0, 100, 80)


def test_masks_decoded_few_at_a_time_are_the_same(tiny_model, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    sam = tiny_model.segmenter.sam.config
    side = sam.vision_config.image_size // sam.vision_config.patch_size
    embeddings = torch.randn(2, sam.vision_config.output_channels, side, side)
    prompts, index = torch.randn(5, embeddings.shape[1]), torch.tensor([0, 1, 0, 1, 1])
    decoded = []
    for most in (16, 2):
        monkeypatch.setattr("satlisa.model.segmenter._MAX_WITHOUT_GRADIENT", most)
        with torch.no_grad():
            decoded.append(tiny_model.segmenter.decode(embeddings, prompts, index))
    for one, other in zip(*decoded, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
