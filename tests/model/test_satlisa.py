"""The model against transformers' own forward, SamModel and counts; gradients; batch splits."""

from dataclasses import replace

import pytest
import torch
from transformers import Qwen3_5ForConditionalGeneration, SamModel

from satlisa.config import ModelConfig
from satlisa.errors import SatlisaError
from satlisa.model.assemble import assemble
from satlisa.model.parameters import count_parameters, part_of
from satlisa.model.satlisa import SatLisa
from satlisa.processing.collator import collate
from tests.helpers import tiny
from tests.helpers.model_fixtures import batch_of, encode, labels_of, make_model, make_samples


def test_text_loss_equals_transformers(tiny_model: SatLisa) -> None:
    """transformers' own labels loss, the `<SEG>` row written into its tied matrix, logits at every position."""
    batch, labels = batch_of(tiny_model, make_samples(8)), labels_of(tiny_model, make_samples(8))
    output = tiny_model(batch)
    merged = tiny_model.vlm.merge_and_unload()
    assert isinstance(merged, Qwen3_5ForConditionalGeneration)
    with torch.no_grad():
        merged.get_input_embeddings().weight[tiny_model.seg_token_id] = tiny_model.seg_row
    theirs = merged(
        input_ids=batch.input_ids,
        attention_mask=batch.attention_mask,
        labels=labels,
        pixel_values=batch.pixel_values,
        image_grid_thw=batch.image_grid_thw,
        mm_token_type_ids=(batch.input_ids == 261).int(),
    )
    assert batch.num_tokens == int((labels != -100).sum())
    torch.testing.assert_close(output.losses.text / batch.num_tokens, theirs.loss, rtol=1e-5, atol=1e-5)


def test_masks_equal_sam_model(tiny_model: SatLisa) -> None:
    """The same prompts through transformers' SamModel: its prompt encoder is replaced by the projected states."""
    samples = [s for s in make_samples(8) if s.regions]
    batch = batch_of(tiny_model, samples)
    states = torch.randn(batch.num_masks, 32)
    with torch.no_grad():
        embeddings = tiny_model.segmenter.encode(batch.sam_pixels)
        ours, scores = tiny_model.decode_masks(states, embeddings, batch.image_index)
        sam = SamModel.from_pretrained(tiny_model.config.sam_model_id)
        for number, image in enumerate(batch.image_index.tolist()):
            prompt = tiny_model.projector(states[number])[None, None, None]
            dense = sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(1, -1, 8, 8)
            sam.prompt_encoder.forward = lambda prompt=prompt, dense=dense, **_: (prompt, dense)  # type: ignore[method-assign]
            theirs = sam(pixel_values=batch.sam_pixels[image : image + 1], multimask_output=False)
            torch.testing.assert_close(ours[number], theirs.pred_masks[0, 0, 0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(scores[number], theirs.iou_scores[0, 0, 0], rtol=1e-4, atol=1e-5)


def gradients(model: SatLisa, splits: list[list]) -> dict[str, torch.Tensor]:  # type: ignore[type-arg]
    model.zero_grad()
    batches = [batch_of(model, split) for split in splits]
    tokens, masks = sum(b.num_tokens for b in batches), sum(b.num_masks for b in batches)
    for batch in batches:
        model(batch).losses.total(model.config, tokens, masks).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("size", [8, 1])
def test_gradients_do_not_depend_on_the_split(tiny_model: SatLisa, size: int) -> None:
    """16 samples as 1×16, 2×8 or 16×1 (some without masks): the same gradients to 1e-5 relative in float32."""
    samples = make_samples(16)
    whole = gradients(tiny_model, [samples])
    split = gradients(tiny_model, [samples[i : i + size] for i in range(0, 16, size)])
    assert whole.keys() == split.keys()
    for part in ("LoRA", "<SEG> row", "projector", "SlimSAM mask decoder"):
        a, b = (torch.cat([g.flatten() for n, g in grads.items() if part_of(n) == part]) for grads in (whole, split))
        assert a.norm() > 0
        assert (a - b).norm() / a.norm() < 1e-5, part


def test_gradients_reach_what_is_trained_and_nothing_else(tiny_model: SatLisa) -> None:
    tiny_model(batch_of(tiny_model, make_samples(4))).losses.total(tiny_model.config, 10, 3).backward()
    for name, parameter in tiny_model.named_parameters():
        trained = part_of(name) in ("LoRA", "<SEG> row", "projector", "SlimSAM mask decoder")
        assert (parameter.grad is not None) == trained, name
        assert parameter.requires_grad == trained, name
    for part in ("LoRA", "<SEG> row", "projector", "SlimSAM mask decoder"):
        assert any(p.grad.abs().sum() > 0 for n, p in tiny_model.named_parameters() if part_of(n) == part), part


def test_mask_loss_reaches_lora_through_the_seg_state(tiny_model: SatLisa) -> None:
    losses = tiny_model(batch_of(tiny_model, [make_samples(2)[1]])).losses
    (losses.bce + losses.dice).backward()
    for part in ("LoRA", "<SEG> row", "projector"):
        assert any(p.grad.abs().sum() > 0 for n, p in tiny_model.named_parameters() if part_of(n) == part), part


def test_no_masks_no_sam(tiny_model: SatLisa, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("SAM was run for a text batch")

    monkeypatch.setattr(tiny_model.segmenter, "encode", fail)
    monkeypatch.setattr(tiny_model.segmenter, "decode", fail)
    output = tiny_model(batch_of(tiny_model, make_samples(1)))
    assert output.losses.bce.item() == 0 and output.losses.num_masks == 0
    output.losses.total(tiny_model.config, 1, 0).backward()
    missing = [n for n, p in tiny_model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []  # DDP waits for every trained parameter


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


def test_a_step_does_not_search_tensors(tiny_model: SatLisa, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, `nonzero` (behind every boolean index) and `item` wait for the device; the language model and SAM
    are transformers', which is why they are left out here."""
    from torch.utils._python_dispatch import TorchDispatchMode

    batch = batch_of(tiny_model, make_samples(8))
    images = tiny_model.image_features(batch.pixel_values, batch.image_grid_thw, batch.image_of_row)
    monkeypatch.setattr(tiny_model, "image_features", lambda *_: images)
    monkeypatch.setattr(tiny_model, "run_text", lambda embeddings, *_: embeddings)
    called: set[str] = set()

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            called.add(str(func))
            return func(*args, **(kwargs or {}))

    with Watch():
        losses = tiny_model(batch).losses
        losses.total(tiny_model.config, 10, 3).backward()
    assert "aten.mm.default" in called
    assert not called & {"aten.nonzero.default", "aten._local_scalar_dense.default", "aten.masked_select.default"}


def test_a_few_steps_lower_the_loss(tiny_model: SatLisa) -> None:
    batch = batch_of(tiny_model, make_samples(8))
    optimizer = torch.optim.AdamW([p for p in tiny_model.parameters() if p.requires_grad], lr=1e-2)
    values = []
    for _ in range(40):
        losses = tiny_model(batch).losses
        loss = losses.total(tiny_model.config, losses.num_tokens, losses.num_masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append((loss.item(), losses.bce.item()))
    assert values[-1][0] < 0.85 * values[0][0]  # the frozen random vocabulary keeps it from falling far
    assert values[-1][1] < 0.9 * values[0][1]


def test_seg_count_must_equal_mask_count(tiny_model: SatLisa) -> None:
    """Refused before a batch exists, and so before the model sees it."""
    encoded = [encode(tiny_model, s) for s in make_samples(2)]
    broken = replace(encoded[1], seg_places=encoded[1].seg_places[:0])
    with pytest.raises(ValueError, match=r"0 <SEG> tokens for 1 masks \(row 1\)"):
        collate([encoded[0], broken], 256)


def test_unknown_lora_targets_are_refused(tiny_config: ModelConfig) -> None:
    config = ModelConfig(**{**vars(tiny_config), "lora_target_modules": ["nowhere"]})
    with pytest.raises(SatlisaError, match="nowhere"):
        make_model(config)


def test_lora_leaves_the_vision_tower_alone(tiny_config: ModelConfig) -> None:
    """`linear_fc1` is a name of the vision tower only, `gate_proj` of the language model only."""
    config = ModelConfig(**{**vars(tiny_config), "lora_target_modules": ["linear_fc1", "gate_proj"]})
    names = [name for name, _ in make_model(config).named_parameters() if "lora_" in name]
    assert names and all("language_model" in name and "gate_proj" in name for name in names)


def test_parameter_counts_of_the_real_configurations(shared_data) -> None:  # type: ignore[no-untyped-def]
    """The table of docs/architecture.md#model, on the meta device: no weights, no memory."""
    from transformers import AutoProcessor, Qwen3_5Config, SamConfig, SamImageProcessor

    from satlisa.model.assemble import Parts

    vlm_dir, sam_dir = shared_data / "qwen3.5-0.8b", shared_data / "slimsam-77"
    with torch.device("meta"):
        vlm = Qwen3_5ForConditionalGeneration(Qwen3_5Config.from_pretrained(vlm_dir))
        sam = SamModel(SamConfig.from_pretrained(sam_dir))
        vlm.tie_weights()
        parts = Parts(vlm, AutoProcessor.from_pretrained(vlm_dir), sam, SamImageProcessor.from_pretrained(sam_dir))
        model = assemble(parts, ModelConfig())
    counts = count_parameters(model)
    assert counts["LoRA"] == (4_915_200, 4_915_200)
    assert counts["<SEG> row"] == (1_024, 1_024)
    assert counts["projector"] == (1_312_000, 1_312_000)
    assert counts["SlimSAM encoder"] == (5_658_968, 0)
    assert counts["SlimSAM mask decoder"] == (4_058_340, 4_058_340)
    assert counts["VLM"][1] == 0 and round(counts["VLM"][0] / 1e6) == 853
    assert model.seg_token_id == 248_077


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["q_proj", "k_proj", "v_proj", "o_proj"], 1_081_344),
        (["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"], 6_389_760),
        (["gate_proj", "up_proj", "down_proj"], 5_308_416),
    ],
)
def test_other_lora_sets(shared_data, targets: list[str], expected: int) -> None:  # type: ignore[no-untyped-def]
    from transformers import Qwen3_5Config

    from satlisa.model.assemble import add_lora

    with torch.device("meta"):
        vlm = Qwen3_5ForConditionalGeneration(Qwen3_5Config.from_pretrained(shared_data / "qwen3.5-0.8b"))
        lora = add_lora(vlm, ModelConfig(lora_target_modules=targets))
    assert sum(p.numel() for n, p in lora.named_parameters() if "lora_" in n) == expected


def test_tiny_models_have_nonzero_relative_positions(tiny_model: SatLisa) -> None:
    tables = [p for n, p in tiny_model.segmenter.sam.vision_encoder.named_parameters() if "rel_pos" in n]
    assert len(tables) == 4 and all(table.abs().sum() > 0 for table in tables)
    assert len(tiny_model.processor.tokenizer) < tiny.VOCABULARY_ROWS
