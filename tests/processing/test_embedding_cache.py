"""The cache of image embeddings: what it gives back, when it does not, and what training makes of it."""

import multiprocessing
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from satlisa.config import ModelConfig
from satlisa.errors import SatlisaError
from satlisa.model.satlisa import SatLisa
from satlisa.model.segmenter import Segmenter
from satlisa.processing.embedding_cache import EmbeddingCache
from satlisa.processing.sam_inputs import SamInputs
from satlisa.runtime.atomic_files import PARTIAL
from tests.helpers.model_fixtures import batch_of, make_model, make_samples

KEY, OTHER = "a" * 64, "b" * 64


def make_encoder(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(3, 4)


def make_cache(folder: Path, seed: int = 0, preprocessing: str = "1024", max_bytes: int = 10**9) -> EmbeddingCache:
    return EmbeddingCache(folder, make_encoder(seed), preprocessing, max_bytes)


def entries(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def test_gives_back_what_store_returned(tmp_path: Path) -> None:
    cache, embeddings = make_cache(tmp_path), torch.randn(2, 4, 8, 8)
    assert cache.load(KEY) is None
    returned = cache.store([KEY, OTHER], embeddings)
    assert returned.dtype == torch.float32 and not torch.equal(returned, embeddings)
    torch.testing.assert_close(returned, embeddings, rtol=1e-3, atol=1e-6)  # float16
    for reader in (cache, make_cache(tmp_path)):  # this run, and a later one
        for key, embedding in zip((KEY, OTHER), returned, strict=True):
            found = reader.load(key)
            assert found is not None and found.dtype == torch.float16 and torch.equal(found.float(), embedding)


def test_other_weights_or_preprocessing_are_no_hit(tmp_path: Path) -> None:
    make_cache(tmp_path).store([KEY], torch.randn(1, 4, 8, 8))
    assert make_cache(tmp_path).load(KEY) is not None
    assert make_cache(tmp_path, seed=1).load(KEY) is None
    assert make_cache(tmp_path, preprocessing="512").load(KEY) is None
    assert make_cache(tmp_path).load(OTHER) is None


def test_an_entry_under_another_name_is_no_hit(tmp_path: Path) -> None:
    cache = make_cache(tmp_path)
    cache.store([KEY, OTHER], torch.randn(2, 4, 8, 8))
    one, other = (cache._path(key) for key in (KEY, OTHER))
    other.write_bytes(one.read_bytes())
    assert cache.load(KEY) is not None and cache.load(OTHER) is None


@pytest.mark.parametrize("content", [b"", b"not an entry", None])
def test_damaged_entries_are_written_anew(tmp_path: Path, content: bytes | None) -> None:
    cache = make_cache(tmp_path)
    embeddings = cache.store([KEY], torch.randn(1, 4, 8, 8))
    (path,) = entries(tmp_path)
    path.write_bytes(path.read_bytes()[:-7] if content is None else content)
    assert cache.load(KEY) is None
    cache.store([KEY], embeddings)
    assert torch.equal(cache.load(KEY).float(), embeddings[0])  # type: ignore[union-attr]


def test_size_limit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache = make_cache(tmp_path, max_bytes=1500)  # an entry of 256 halves is some 700 bytes
    for number in range(6):
        cache.store([f"{number:064}"], torch.randn(1, 4, 8, 8))
    assert len(entries(tmp_path)) == 3 and "takes no more" in caplog.text
    assert make_cache(tmp_path, max_bytes=1500).load(f"{0:064}") is not None
    late = make_cache(tmp_path, max_bytes=1500)
    late.store([KEY], torch.randn(1, 4, 8, 8))
    assert late.load(KEY) is None and len(entries(tmp_path)) == 3


def _fill(folder: Path, seed: int) -> None:
    cache = make_cache(folder)
    torch.manual_seed(7)
    embeddings = torch.randn(20, 4, 8, 8)
    for number in torch.randperm(20, generator=torch.Generator().manual_seed(seed)).tolist():
        found = cache.load(f"{number:064}")
        assert found is None or torch.equal(found, embeddings[number].half())
        cache.store([f"{number:064}"], embeddings[number : number + 1])


def test_several_processes_share_a_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_fill, args=(tmp_path, seed)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert len(entries(tmp_path)) == 20 and not list(tmp_path.rglob("*" + PARTIAL))
    assert all(load_file(path)["image_embedding"].shape == (4, 8, 8) for path in entries(tmp_path))


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(SatlisaError, match="CACHE_SAM"):
        make_cache(tmp_path / "file" / "cache")


def test_a_failed_write_costs_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full_disk(tensors: object, path: Path, metadata: object) -> None:
        Path(path).write_bytes(b"half of")
        raise OSError("No space left on device")

    cache, embeddings = make_cache(tmp_path), torch.randn(1, 4, 8, 8)
    monkeypatch.setattr("satlisa.processing.embedding_cache.save_file", full_disk)
    assert cache.store([KEY], embeddings).shape == (1, 4, 8, 8)
    assert "No space left" in caplog.text and [p for p in tmp_path.rglob("*") if p.is_file()] == []
    monkeypatch.setattr("satlisa.processing.embedding_cache.save_file", save_file)
    cache.store([KEY], embeddings)
    assert cache.load(KEY) is not None


# In a model


def losses(model: SatLisa) -> list[float]:
    with torch.no_grad():
        sums = model(batch_of(model, make_samples(8))).losses
    return [sums.text.item(), sums.bce.item(), sums.dice.item()]


def test_cold_and_warm_cache_compute_the_same(
    tiny_config: ModelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(tiny_config).eval()
    without = losses(model)
    model.segmenter.open_cache(str(tmp_path), 10**9, torch.float32)
    cold = losses(model)
    assert len(entries(tmp_path)) == 4  # of eight images, those with masks
    torch.testing.assert_close(cold, without, rtol=1e-3, atol=1e-4)

    def fail(*_: object) -> None:
        raise AssertionError("the encoder or its preprocessing ran with everything in the cache")

    monkeypatch.setattr(Segmenter, "encode", fail)
    monkeypatch.setattr(SamInputs, "preprocess", fail)
    assert losses(model) == cold


def test_a_half_full_cache_keeps_the_order(tiny_config: ModelConfig, tmp_path: Path) -> None:
    model = make_model(tiny_config).eval()
    model.segmenter.open_cache(str(tmp_path), 10**9, torch.float32)
    cold = losses(model)
    entries(tmp_path)[1].unlink()
    assert losses(model) == pytest.approx(cold, rel=1e-6)
