"""The peer: a straightforward LISA-style model, trained and asked with `transformers` as in LISA's own code.

- `model(..., labels=…, output_hidden_states=True)`: logits at every position, hidden states of every layer;
- SAM's encoder for every image of a batch, whether it has a mask or not; one mask at a time through the decoder;
- `generate(..., output_hidden_states=True)` for one image and question at a time, then SAM.

It is as fast as that approach allows. Language model, LoRA, projector and mask decoder are the same modules on both
sides. The `<SEG>` row is copied into the frozen tied matrix: training the matrix, as LISA does, or PEFT's
`trainable_token_indices`, which copies it twice per step, would cost the peer more. SAM's encoder runs without
gradients. The gated delta-net layers run on the functions that `transformers` chooses. Both sides share the mask
losses and the resampling to the image's size.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import LogitsProcessorList
from transformers.models.qwen3_5 import modeling_qwen3_5

from benchmarks.models import plain_sam
from satlisa.inference.generation import Answer
from satlisa.model.delta_net import FUNCTIONS
from satlisa.model.losses import mask_loss_sums, weigh
from satlisa.model.satlisa import SatLisa
from satlisa.model.segmenter import restore_logits
from satlisa.processing.chat import as_turns, decode_answer, encode_prompt
from satlisa.processing.collator import Batch, Encoded


def labels_of(batch: Batch) -> Tensor:
    """(B, T) labels for `transformers`: the answers' tokens, -100 elsewhere."""
    labels = torch.full_like(batch.input_ids, -100)
    labels.view(-1)[batch.supervised + 1] = batch.targets
    return labels


class Peer:
    """The straightforward implementation around the modules of a `SatLisa`."""

    def __init__(self, model: SatLisa) -> None:
        self.model, self.sam = model, plain_sam(model)
        self.logits_processor = LogitsProcessorList()  # makes random weights generate <SEG>, see `works`
        with torch.no_grad():
            model.qwen.get_input_embeddings().weight[model.seg_token_id] = model.seg_row.to(model.qwen.dtype)

    def loss(self, batch: Batch, samples: Sequence[Encoded], sam_pixels: Tensor) -> Tensor:
        """L of one batch. `sam_pixels` (B, 3, …) are all images of the batch, with masks and without.

        Call this and its backward inside `unpatched_delta_net`.
        """
        model, device = self.model, self.model.device
        with model.autocast():
            with torch.no_grad():  # first, as in LISA: its activations are freed before the language model runs
                image_embeddings = self.sam.get_image_embeddings(sam_pixels)
            output = model.vlm(
                input_ids=batch.input_ids,
                attention_mask=batch.attention_mask,
                labels=labels_of(batch),
                pixel_values=torch.cat([s.prompt.pixel_values for s in samples]).to(device),
                image_grid_thw=torch.cat([s.prompt.image_grid_thw for s in samples]).to(device),
                mm_token_type_ids=(batch.input_ids == model.processor.image_token_id).long(),
                output_hidden_states=True,
                use_cache=False,
            )
            hidden = output.hidden_states[-1]  # (B, T, D)
            mask_logits = []
            for row in range(len(samples)):
                for state in hidden[row][batch.input_ids[row] == model.seg_token_id]:
                    mask_logits.append(self._mask(image_embeddings[row : row + 1], state)[0])
            bce, dice = mask_loss_sums(torch.cat(mask_logits), batch.mask_targets, batch.mask_valid)
        text: Tensor = output.loss
        return weigh(model.config, text, bce / batch.num_masks, dice / batch.num_masks)

    @torch.inference_mode()
    def answer(
        self,
        model: SatLisa,
        images: Sequence[Image.Image],
        prompts: Sequence[Any],
        *,
        max_new_tokens: int = 256,
        **_: Any,
    ) -> list[Answer]:
        """Answers, one image and question at a time; the signature of `satlisa.inference.generation.answer`."""
        return [self._answer(image, prompt, max_new_tokens) for image, prompt in zip(images, prompts, strict=True)]

    def _answer(self, image: Image.Image, question: Any, max_new_tokens: int) -> Answer:
        model, tokenizer, device = self.model, self.model.processor.tokenizer, self.model.device
        prompt = encode_prompt(model.processor, as_turns(question), image)
        input_ids = prompt.input_ids[None].to(device)
        with unpatched_delta_net(device), model.autocast():
            generated = model.vlm.generate(
                input_ids=input_ids,
                attention_mask=torch.ones_like(input_ids),
                mm_token_type_ids=(input_ids == model.processor.image_token_id).long(),
                pixel_values=prompt.pixel_values.to(device),
                image_grid_thw=prompt.image_grid_thw.to(device),
                max_new_tokens=max_new_tokens + 1,  # one more step for the state at a last <SEG>
                do_sample=False,
                output_hidden_states=True,
                return_dict_in_generate=True,
                logits_processor=self.logits_processor,
            )
            ids = generated.sequences[0, input_ids.shape[1] :].tolist()
            ends = [place for place, token in enumerate(ids) if token in model.qwen.generation_config.eos_token_id]
            ids = ids[: min([max_new_tokens, *ends])]
            # hidden_states[t] belong to the step that chose token t; token t was read in step t + 1
            states = [
                generated.hidden_states[place + 1][-1][0, -1]
                for place, token in enumerate(ids)
                if token == model.seg_token_id
            ]
            masks, scores = [], []
            if states:
                pixels = model.segmenter.inputs.preprocess([image]).to(device)
                image_embeddings = self.sam.get_image_embeddings(pixels)
                frame = model.segmenter.inputs.frame((image.height, image.width))
                for state in states:
                    mask_logits, score = self._mask(image_embeddings, state)
                    masks.append((restore_logits(mask_logits, frame)[0] > 0).cpu().numpy())
                    scores.append(float(score))
        shape = (0, image.height, image.width)
        stacked = np.stack(masks) if masks else np.zeros(shape, dtype=bool)
        text = decode_answer(tokenizer, ids, model.config.seg_token)
        return Answer(text, stacked, np.array(scores, dtype=np.float32), ids)

    def _mask(self, image_embeddings: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (1, m, m) and score () of one `<SEG>` state (D,)."""
        prompt = self.model.projector(state.float())[None, None, None]  # (1, 1, 1, C)
        size = self.sam.config.vision_config.image_size // self.sam.config.vision_config.patch_size
        dense = self.sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(-1, -1, size, size)
        decoder = self.model.segmenter.sam.mask_decoder  # the trained one, so that gradients can be compared
        mask_logits, scores = decoder(
            image_embeddings=image_embeddings,
            image_positional_embeddings=self.sam.get_image_wide_positional_embeddings(),
            sparse_prompt_embeddings=prompt,
            dense_prompt_embeddings=dense,
            multimask_output=False,
        )
        return mask_logits[0, 0].float(), scores[0, 0, 0]


@contextmanager
def unpatched_delta_net(device: torch.device) -> Iterator[None]:
    """The gated delta-net layers as `transformers` runs them: its kernels on CUDA, its plain functions elsewhere."""
    chosen = {name: getattr(modeling_qwen3_5, name) for name in FUNCTIONS}
    for name, choice in chosen.items():
        bound = choice.satlisa_replaces
        setattr(modeling_qwen3_5, name, bound if device.type == "cuda" else bound.__wrapped__)
    try:
        yield
    finally:
        for name, choice in chosen.items():
            setattr(modeling_qwen3_5, name, choice)
