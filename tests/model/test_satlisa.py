"""The model against transformers' own forward, SamModel and counts; gradients; batch splits."""

import pytest
import torch
from transformers import Qwen3_5ForConditionalGeneration, SamModel

from satlisa.model.parameters import part_of
from satlisa.model.satlisa import SatLisa
from tests.helpers import tiny
from tests.helpers.model_fixtures import batch_of, labels_of, make_samples


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


@pytest.mark.integration
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


@pytest.mark.integration
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


def test_tiny_models_have_nonzero_relative_positions(tiny_model: SatLisa) -> None:
    tables = [p for n, p in tiny_model.segmenter.sam.vision_encoder.named_parameters() if "rel_pos" in n]
    assert len(tables) == 4 and all(table.abs().sum() > 0 for table in tables)
    assert len(tiny_model.processor.tokenizer) < tiny.VOCABULARY_ROWS
