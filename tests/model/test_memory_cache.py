"""Encoders' outputs in memory: what is encoded how often, and that losses do not change."""

import pytest
import torch
from torch import Tensor

from satlisa.model.memory_cache import MemoryCache
from satlisa.model.satlisa import SatLisa
from tests.helpers.model_fixtures import batch_of, make_samples


def test_each_image_and_encoder_once_until_the_cache_is_full() -> None:
    encoded: list[tuple[str, str]] = []

    def recall(encoder: str, key: str) -> Tensor:
        return cache.recall(encoder, key, lambda: encoded.append((encoder, key)) or torch.full((10,), len(encoded)))

    cache = MemoryCache(2 * 10 * 8)
    first = recall("SAM", "a")
    assert recall("SAM", "a") is first and encoded == [("SAM", "a")]
    assert recall("tower", "a") is not first and cache.num_bytes == 160
    for _ in range(2):
        recall("SAM", "b")
    assert encoded == [("SAM", "a"), ("tower", "a"), ("SAM", "b"), ("SAM", "b")] and cache.num_bytes == 160
    assert recall("SAM", "a") is first


def test_an_image_is_encoded_once_whatever_batches_it_is_in(
    tiny_model: SatLisa, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The losses of each batch are those without a cache, and the same to the bit from an empty and a filled one."""
    samples = make_samples(6)
    batches = [batch_of(tiny_model, part) for part in (samples, samples[1:4], samples[::-1])]
    plain = [tiny_model(batch).losses for batch in batches]
    counts = {"tower": 0, "SAM": 0}
    count_images(tiny_model, counts, monkeypatch)

    def cold(batch_number: int) -> Tensor:
        tiny_model.keep_in_memory(10**9)
        return total(tiny_model, batches[batch_number])

    alone = [cold(number) for number in range(len(batches))]
    counts.update(tower=0, SAM=0)
    tiny_model.keep_in_memory(10**9)
    warm = [total(tiny_model, batch) for batch in batches]
    assert counts == {"tower": 6, "SAM": sum(bool(sample.regions) for sample in samples)}
    assert warm == alone
    for found, expected, batch in zip(warm, plain, batches, strict=True):
        torch.testing.assert_close(
            found, expected.total(tiny_model.config, batch.num_tokens, batch.num_masks), rtol=1e-5, atol=1e-6
        )


def total(model: SatLisa, batch) -> Tensor:  # type: ignore[no-untyped-def]
    return model(batch).losses.total(model.config, batch.num_tokens, batch.num_masks)


def count_images(model: SatLisa, counts: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Count the images that each encoder is run for."""
    features, encode = model.qwen.model.get_image_features, model.segmenter.encode

    def tower(pixel_values: Tensor, grid: Tensor, **options: object) -> object:
        counts["tower"] += len(grid)
        return features(pixel_values, grid, **options)

    def sam(pixel_values: Tensor) -> Tensor:
        counts["SAM"] += len(pixel_values)
        return encode(pixel_values)

    monkeypatch.setattr(model.qwen.model, "get_image_features", tower)
    monkeypatch.setattr(model.segmenter, "encode", sam)
