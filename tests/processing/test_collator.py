"""Batches: positions, distinct images, masks and their `<SEG>`."""

from dataclasses import replace

import pytest
import torch

from satlisa.model.satlisa import SatLisa
from satlisa.processing.collator import collate
from tests.helpers.model_fixtures import batch_of, encode, labels_of, make_samples


def test_an_image_is_in_a_batch_once(tiny_model: SatLisa, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several samples about few images: the same losses as with every image on its own."""
    samples = make_samples(8)
    shared = [replace(s, image=samples[n % 2].image) for n, s in enumerate(samples)]
    batch = batch_of(tiny_model, shared)
    assert len(batch.image_grid_thw) == 2 and batch.image_of_row == [0, 1] * 4
    assert len(batch.sam_pixels) == 1 and batch.image_index.tolist() == [0] * batch.num_masks
    encoded = [encode(tiny_model, s) for s in shared]
    alone = collate([replace(e, image_key=str(e.index)) for e in encoded], 256)
    assert len(alone.image_grid_thw) == 8 and len(alone.sam_pixels) == 4
    for one, other in zip(
        vars(tiny_model(batch).losses).values(), vars(tiny_model(alone).losses).values(), strict=True
    ):
        torch.testing.assert_close(torch.as_tensor(one), torch.as_tensor(other), rtol=1e-5, atol=1e-5)


def test_flat_positions_are_those_of_labels_and_seg(tiny_model: SatLisa) -> None:
    batch = batch_of(tiny_model, make_samples(8))
    shifted = torch.cat([labels_of(tiny_model, make_samples(8))[:, 1:], torch.full((8, 1), -100)], dim=1).flatten()
    assert torch.equal(batch.supervised, (shifted != -100).nonzero()[:, 0])
    assert torch.equal(batch.targets, shifted[shifted != -100])
    assert torch.equal(batch.seg_positions, (batch.input_ids.flatten() == tiny_model.seg_token_id).nonzero()[:, 0])


def test_seg_count_must_equal_mask_count(tiny_model: SatLisa) -> None:
    """Refused before a batch exists, and so before the model sees it."""
    encoded = [encode(tiny_model, s) for s in make_samples(2)]
    broken = replace(encoded[1], seg_places=encoded[1].seg_places[:0])
    with pytest.raises(ValueError, match=r"0 <SEG> tokens for 1 masks \(row 1\)"):
        collate([encoded[0], broken], 256)


def test_masks_weigh_the_same_or_rows_do(tiny_model: SatLisa) -> None:
    encoded = [encode(tiny_model, s) for s in make_samples(8)]
    counts = [len(e.mask_targets) for e in encoded]
    assert sorted(set(counts))[:2] == [0, 1] and max(counts) > 1
    by_mask, by_row = collate(encoded, 256), collate(encoded, 256, "row")
    assert by_mask.mask_weights.tolist() == [1] * sum(counts) and by_mask.mask_divisor == sum(counts)
    assert by_row.mask_weights.tolist() == pytest.approx([1 / count for count in counts for _ in range(count)])
    assert by_row.mask_divisor == sum(count > 0 for count in counts)
    empty = collate([e for e, count in zip(encoded, counts, strict=True) if not count], 256, "row")
    assert empty.mask_weights.tolist() == [] and empty.mask_divisor == 0


def test_losses_per_row_are_means_of_rows(tiny_model: SatLisa) -> None:
    """Rows one by one, each with the mean over its masks; the same in one batch."""
    encoded = [encode(tiny_model, s) for s in make_samples(8)]
    alone = [tiny_model(collate([e], 256)).losses for e in encoded if len(e.mask_targets)]
    together = tiny_model(collate(encoded, 256, "row")).losses
    assert together.num_masks == len(alone)
    for name in ("bce", "dice"):
        expected = sum(float(getattr(losses, name)) / losses.num_masks for losses in alone)
        assert float(getattr(together, name)) == pytest.approx(expected, rel=1e-4)


def test_positions_equal_qwens(tiny_model: SatLisa) -> None:
    samples = [encode(tiny_model, s) for s in make_samples(6)]
    batch = collate(samples, pad_token_id=256)
    types = (batch.input_ids == tiny_model.processor.image_token_id).int()
    expected, _ = tiny_model.qwen.model.get_rope_index(
        batch.input_ids, types, image_grid_thw=batch.image_grid_thw, attention_mask=batch.attention_mask
    )
    mask = batch.attention_mask
    assert torch.equal(batch.position_ids * mask, expected * mask)
