"""The shipped demo backbone: what the folders hold, what the tokenizer spells, what the weights have learnt."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from transformers import AutoProcessor, Qwen3_5ForConditionalGeneration, SamImageProcessor, SamModel

from satlisa.config import ModelConfig
from satlisa.data.sample import Turn
from satlisa.data.synthetic import questions
from satlisa.demo.pretrain import WEIGHTS
from satlisa.model.assemble import assemble
from satlisa.pretrained.base_models import load_parts
from satlisa.processing.chat import encode_prompt
from tests.helpers.scenes import drawn, unseen_scenes

VLM, SAM = WEIGHTS / "vlm", WEIGHTS / "sam"


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(VLM)


@pytest.fixture(scope="module")
def vlm():
    return Qwen3_5ForConditionalGeneration.from_pretrained(VLM, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def sam():
    return SamModel.from_pretrained(SAM, dtype=torch.float32).eval()


# The folders


def test_the_folders_are_at_most_12_mb_of_half_precision_safetensors():
    files = [path for path in WEIGHTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 12_000_000
    weights = [path for path in files if path.suffix == ".safetensors"]
    assert sorted(path.parent.name for path in weights) == ["sam", "vlm"]
    for path in weights:
        with safe_open(path, framework="pt") as tensors:
            assert {tensors.get_slice(name).get_dtype() for name in tensors.keys()} <= {"F16", "BF16"}  # noqa: SIM118
    assert not [path.name for path in files if path.suffix in (".pt", ".bin", ".pkl")]


@pytest.mark.parametrize(("kind", "folder"), [(Qwen3_5ForConditionalGeneration, VLM), (SamModel, SAM)])
def test_the_weights_fit_the_architecture_and_are_finite(kind, folder):
    model, info = kind.from_pretrained(folder, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), info
    assert all(bool(p.isfinite().all()) for p in model.parameters())


def test_text_model_is_qwen_in_small(vlm):
    text = vlm.config.text_config
    assert set(text.layer_types) == {"linear_attention", "full_attention"}
    assert vlm.config.tie_word_embeddings and text.tie_word_embeddings
    assert vlm.lm_head.weight.data_ptr() == vlm.get_input_embeddings().weight.data_ptr()
    rope = text.rope_parameters
    assert rope["partial_rotary_factor"] == 0.25
    assert 2 * sum(rope["mrope_section"]) == text.head_dim * rope["partial_rotary_factor"]
    assert vlm.config.vision_config.out_hidden_size == text.hidden_size
    assert sum(p.numel() for p in vlm.parameters()) < 5_000_000


def test_every_lora_target_of_the_real_model_exists(vlm):
    names = {name.rsplit(".", 1)[-1] for name, _ in vlm.model.language_model.named_modules()}
    assert set(ModelConfig().lora_target_modules) <= names


def test_sam_is_sam_in_small(sam):
    vision = sam.config.vision_config
    assert (vision.image_size, vision.patch_size) == (256, 8)
    assert vision.use_rel_pos and vision.num_pos_feats * 2 == vision.output_channels
    layers = set(range(vision.num_hidden_layers))
    assert set(vision.global_attn_indexes) < layers and vision.global_attn_indexes  # both kinds of attention
    assert any(float(p.detach().abs().max()) > 0.01 for n, p in sam.named_parameters() if "rel_pos" in n)  # learnt
    images = SamImageProcessor.from_pretrained(SAM)
    assert images(Image.new("RGB", (300, 150)), return_tensors="pt")["pixel_values"].shape == (1, 3, 256, 256)


def test_generation_stops_at_the_end_of_the_turn(vlm, processor):
    ids = processor.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert vlm.generation_config.eos_token_id == ids
    assert (processor.tokenizer.eos_token_id, processor.tokenizer.pad_token_id) == tuple(ids)


# Tokenizer, template and processor


def test_seg_is_unknown_and_gets_a_spare_row(vlm, processor):
    tokenizer, rows = processor.tokenizer, vlm.get_input_embeddings().num_embeddings
    free = len(tokenizer)
    assert "<SEG>" not in tokenizer.get_vocab() and free < rows
    config = ModelConfig(vlm_model_id="demo:vlm", sam_model_id="demo:sam", projector_hidden_size=256)
    model = assemble(load_parts(config, torch.float32), config)
    assert model.seg_token_id == free
    assert model.qwen.get_input_embeddings().num_embeddings == rows


def test_vocabulary_holds_qwens_tokens(processor):
    tokenizer = processor.tokenizer
    added = {token.content: token.special for token in tokenizer.added_tokens_decoder.values()}
    special = "<|endoftext|> <|im_start|> <|im_end|> <|vision_start|> <|vision_end|> <|image_pad|> <|video_pad|>"
    assert added == {**dict.fromkeys(special.split(), True), "<think>": False, "</think>": False}
    assert processor.image_token_id == tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert len(tokenizer) <= 700


@pytest.mark.parametrize("text", ["building [12, 345, 67, 890]", "  Größe: 3 km² 🛰\n\tend ", "2024-11-24"])
def test_any_text_is_spelled_and_digits_stand_alone(processor, text):
    ids = processor.tokenizer(text, add_special_tokens=False).input_ids
    assert processor.tokenizer.decode(ids) == text
    pieces = [processor.tokenizer.decode([i]) for i in ids]
    assert all(len(piece) == 1 for piece in pieces if any(c in "0123456789" for c in piece))


def test_prompt_is_qwens_non_thinking_form(processor):
    content = [{"type": "image"}, {"type": "text", "text": "Segment the buildings"}]
    messages = [{"role": "user", "content": content}]
    rendered = processor.apply_chat_template(messages, add_generation_prompt=True, enable_thinking=False)
    assert rendered == (
        "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Segment the buildings<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    assert processor.tokenizer.chat_template == processor.chat_template


@pytest.mark.integration
def test_template_equals_qwens_own(processor, shared_data):
    real = AutoProcessor.from_pretrained(shared_data / "qwen3.5-0.8b")
    picture = [{"type": "image"}, {"type": "text", "text": "What is this?"}]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": picture},
        {"role": "assistant", "content": "Fields"},
        {"role": "user", "content": "Where?"},
    ]
    ours, theirs = (
        p.tokenizer.apply_chat_template(
            messages,
            chat_template=p.chat_template,
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
        )
        for p in (processor, real)
    )
    assert ours == theirs


@pytest.mark.parametrize("size", [(256, 256), (64, 64), (1000, 500), (37, 300)])
def test_an_image_of_any_size_takes_about_64_tokens(processor, size):
    prompt = encode_prompt(processor, [Turn("user", "Segment")], Image.new("RGB", size))
    count = int((prompt.input_ids == processor.image_token_id).sum())
    assert count == 64 if size[0] == size[1] else 48 <= count <= 72


# What the weights have learnt, on scenes that they have not seen


@pytest.mark.integration
def test_text_side_answers_about_unseen_scenes(vlm, processor):
    scenes = unseen_scenes(32)
    for ask, key, least in ((questions.ask_class, None, 0.9), (questions.ask_flood, 3, 0.85)):
        prompts = [encode_prompt(processor, [Turn("user", ask(x.plan).prompt)], x.image) for x in scenes]
        input_ids = torch.stack([prompt.input_ids for prompt in prompts])
        generated = vlm.generate(
            input_ids=input_ids,
            attention_mask=torch.ones_like(input_ids),
            mm_token_type_ids=(input_ids == processor.image_token_id).int(),
            pixel_values=torch.cat([prompt.pixel_values for prompt in prompts]),
            image_grid_thw=torch.cat([prompt.image_grid_thw for prompt in prompts]),
            max_new_tokens=12,
            do_sample=False,
        )
        texts = processor.tokenizer.batch_decode(generated[:, input_ids.shape[1] :], skip_special_tokens=True)
        expected = [ask(x.plan).answer for x in scenes]
        right = [text[:key] == answer[:key] for text, answer in zip(texts, expected, strict=True)]
        assert np.mean(right) >= least, list(zip(texts, expected, strict=True))


@pytest.mark.integration
@torch.no_grad()
def test_sam_side_cuts_out_boxed_objects(sam):
    images, values = SamImageProcessor.from_pretrained(SAM), []
    for scene in unseen_scenes(16):
        if not scene.plan.objects:
            continue
        boxes = torch.tensor([[thing.box for thing in scene.plan.objects]]).float() * 0.256
        pixels = images(scene.image, return_tensors="pt")["pixel_values"]
        output = sam(pixel_values=pixels, input_boxes=boxes, multimask_output=False)
        logits = torch.nn.functional.interpolate(output.pred_masks[0], (256, 256), mode="bilinear")[:, 0]
        for mask, thing in zip((logits > 0).numpy(), scene.plan.objects, strict=True):
            truth = drawn(thing, 256)
            values.append((mask & truth).sum() / (mask | truth).sum())
    assert len(values) >= 20 and np.mean(values) >= 0.8


# The command that made them
