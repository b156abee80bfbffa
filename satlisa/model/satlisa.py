"""Satellite Omni LISA: the model of docs/architecture.md#model.

    image ─┬─ Qwen3.5 (frozen, LoRA) ─► text logits
           │          └─ last hidden state AT each <SEG> (D) ─ projector ─► prompt (C)
           └─ SlimSAM encoder (frozen) ─► image embeddings ────────────────┴─► mask decoder (trained) ─► mask logits

Shapes: B samples, T tokens, D 1024 (text width), C 256 (SAM prompt width), V vocabulary rows, S images with masks,
N masks, A supervised tokens, m 256 (mask frame).

Unlike LISA (Lai et al., arXiv:2308.00692), which uses the state *before* `[SEG]`, the one that predicts it, this model
uses the state *at* `<SEG>`, and GELU in place of ReLU.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

from satlisa.config import ModelConfig
from satlisa.model.lm_head import LMHead
from satlisa.model.losses import LossSums, mask_loss_sums
from satlisa.model.memory_cache import MemoryCache
from satlisa.model.precision import layer_dtype
from satlisa.model.segmenter import Segmenter
from satlisa.processing.collator import Batch


class Projector(nn.Sequential):
    """`<SEG>` states (N, D) → mask prompts (N, C): Linear, GELU, Linear."""

    def __init__(self, hidden_size: int, projector_hidden_size: int, prompt_size: int) -> None:
        super().__init__(
            nn.Linear(hidden_size, projector_hidden_size), nn.GELU(), nn.Linear(projector_hidden_size, prompt_size)
        )


@dataclass(frozen=True)
class Output:
    """Result of a forward pass: `losses` (sums, with gradient), `mask_logits` (N, m, m), `scores` (N,)."""

    losses: LossSums
    mask_logits: Tensor
    scores: Tensor


class SatLisa(nn.Module):
    """VLM, projector and segmenter, with the processor that prepares their inputs.

    Args:
        vlm: `Qwen3_5ForConditionalGeneration` inside a PEFT model, or without one where LoRA is merged into it.
        segmenter: SlimSAM.
        processor: the VLM's processor; its tokenizer knows `<SEG>`.
        config: settings, with `seg_token_id` and widths filled in.
        seg_row: (D,) initial `<SEG>` row of the tied embedding.
        compute_dtype: autocast dtype; float32 disables autocast.
    """

    def __init__(
        self,
        vlm: nn.Module,
        segmenter: Segmenter,
        processor: Any,
        config: ModelConfig,
        seg_row: Tensor,
        compute_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.vlm: Any = vlm
        self.segmenter = segmenter
        self.projector = Projector(config.vlm_hidden_size, config.projector_hidden_size, config.sam_prompt_size)
        # The trained row of the tied embedding is a separate parameter: PEFT's trainable_token_indices copies the
        # entire matrix twice per step (3 times slower, +1.3 GB on a 4-layer model).
        self.seg_row = nn.Parameter(seg_row.detach().float().clone())
        # The row of the LM head, where an adapter of another program separates it from the row of the input.
        self.seg_head_row: Tensor | None
        self.register_buffer("seg_head_row", None, persistent=False)
        self.processor = processor
        self.config = config
        self.compute_dtype = compute_dtype
        assert config.seg_token_id is not None
        self.seg_token_id: int = config.seg_token_id

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return self.seg_row.device

    @property
    def qwen(self) -> Any:
        """The Qwen3.5 model: inside the PEFT wrapper, with LoRA on its linear layers, or a merged one as it is."""
        return self.vlm.get_base_model() if isinstance(self.vlm, PeftModel) else self.vlm

    def autocast(self) -> torch.autocast:
        """Autocast to `compute_dtype`; trained parameters stay float32."""
        enabled = self.compute_dtype != torch.float32
        return torch.autocast(self.device.type, dtype=self.compute_dtype if enabled else None, enabled=enabled)

    def forward(self, batch: Batch) -> Output:
        """Losses and masks of a batch of text and mask samples."""
        with self.autocast():
            images = self.image_features(batch.pixel_values, batch.image_grid_thw, batch.image_of_row, batch.image_keys)
            embeddings = self.embed(batch.input_ids, images)
            hidden = self.run_text(embeddings, batch.attention_mask, batch.position_ids).flatten(0, 1)  # (B·T, D)
            # Compute logits at supervised positions only; the others are unused.
            text_loss = self.head.text_loss_sum(hidden[batch.supervised], batch.targets)
            mask_logits, scores, bce, dice = self._mask_losses(hidden[batch.seg_positions], batch)
        return Output(LossSums(text_loss, bce, dice, batch.num_tokens, batch.mask_divisor), mask_logits, scores)

    @torch.no_grad()
    def image_features(
        self,
        pixel_values: Tensor,
        image_grid_thw: Tensor,
        image_of_row: Sequence[int] | None = None,
        image_keys: Sequence[str] = (),
    ) -> Tensor:
        """Image tokens (tokens, D) from the frozen vision tower, concatenated over rows.

        Each image is encoded once. `image_of_row` gives the image index of each row; by default, row n has image n.
        Images with `image_keys` are recalled from memory where they are kept (`keep_in_memory`).
        """
        memory = self.segmenter.memory
        if memory is None or not image_keys:
            features = self._run_tower(pixel_values, image_grid_thw)
        else:
            patches = pixel_values.split(image_grid_thw.prod(dim=-1).tolist())
            grids = image_grid_thw.split(1)
            features = memory.recall_each("tower", image_keys, lambda *one: self._run_tower(*one)[0], patches, grids)
        return torch.cat([features[image] for image in image_of_row] if image_of_row else tuple(features))

    def _run_tower(self, pixel_values: Tensor, image_grid_thw: Tensor) -> Sequence[Tensor]:
        """The image tokens (tokens, D) of each image."""
        output = self.qwen.model.get_image_features(pixel_values, image_grid_thw, return_dict=True)
        features: Sequence[Tensor] = output.pooler_output
        return features

    def keep_in_memory(self, max_bytes: int) -> None:
        """Keep what both frozen encoders make of an image from now on, on their device."""
        self.segmenter.memory, self.segmenter.inputs.in_memory = MemoryCache(max_bytes), True

    def embed(self, input_ids: Tensor, image_features: Tensor | None = None) -> Tensor:
        """Token embeddings (B, T, D), with the trained `<SEG>` row and the image features inserted."""
        embeddings = self.qwen.get_input_embeddings()(input_ids)  # (B, T, D)
        embeddings = embeddings.to(layer_dtype(embeddings.dtype))  # the residual stream starts here
        is_seg = (input_ids == self.seg_token_id)[..., None]
        embeddings = torch.where(is_seg, self.seg_row.to(embeddings.dtype), embeddings)
        if image_features is None:
            return embeddings
        is_image = (input_ids == self.processor.image_token_id)[..., None].expand_as(embeddings)
        return embeddings.masked_scatter(is_image, image_features.to(embeddings.dtype))

    def run_text(
        self, embeddings: Tensor, attention_mask: Tensor, position_ids: Tensor, cache: Any | None = None
    ) -> Tensor:
        """Run the language model: embeddings (B, T, D) → last hidden states (B, T, D). Reads and updates `cache`.

        `attention_mask` (B, T_all) covers cached and new tokens, `position_ids` (3, B, T) only the new ones.
        """
        text_model = self.qwen.model.language_model
        arguments = {_cache_argument(text_model): cache} if cache is not None else {}
        hidden: Tensor = text_model(
            inputs_embeds=embeddings,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=cache is not None,
            **arguments,
        ).last_hidden_state
        return hidden

    @property
    def head(self) -> LMHead:
        """LM head: the tied embedding with the trained `<SEG>` row."""
        row = self.seg_row if self.seg_head_row is None else self.seg_head_row
        return LMHead(self.qwen.lm_head.weight, row, self.seg_token_id)

    def decode_masks(self, seg_states: Tensor, image_embeddings: Tensor, image_index: Tensor) -> tuple[Tensor, Tensor]:
        """`<SEG>` states (N, D) → projector → mask decoder: logits (N, m, m) and scores (N,).

        `image_embeddings` (S, C, 64, 64), one per image; `image_index` (N,) is the image of each state.
        """
        prompts = self.projector(seg_states.to(self.seg_row.dtype))  # (N, C)
        return self.segmenter.decode(image_embeddings, prompts, image_index)

    def _mask_losses(self, seg_states: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mask logits, scores, and the sums of BCE and DICE.

        DDP needs a gradient for every trained parameter in every step. Two cases would give none, so zeros are added:
        the IoU head, which is in no loss (docs/architecture.md#loss), and a batch without masks, which skips SAM.
        """
        if batch.num_masks:
            image_embeddings = self.segmenter.encode_or_recall(batch.sam_pixels, batch.sam_keys, batch.sam_recalled)
            mask_logits, scores = self.decode_masks(seg_states, image_embeddings, batch.image_index)
            bce, dice = mask_loss_sums(mask_logits, batch.mask_targets, batch.mask_valid, batch.mask_weights)
            return mask_logits, scores, bce + 0 * scores.sum(), dice
        trained = [*self.projector.parameters(), *self.segmenter.sam.mask_decoder.parameters()]
        nothing = sum((0 * p.sum() for p in trained), start=torch.zeros((), device=self.device))
        side = self.segmenter.inputs.mask_size
        empty = torch.empty(0, side, side, device=self.device)
        return empty, empty[:, 0, 0], nothing, nothing


def _cache_argument(text_model: nn.Module) -> str:
    """transformers 5.24 renamed `past_key_values` to `cache`."""
    return "cache" if "cache" in inspect.signature(text_model.forward).parameters else "past_key_values"
