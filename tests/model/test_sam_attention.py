"""The encoder's attention against transformers' SamModel, with relative positions that are not zero."""

from itertools import product

import pytest
import torch
from transformers import SamConfig, SamModel

from satlisa.model import sam_attention as encoder
from satlisa.model.sam_attention import RelativeAttention, attend_folded, attend_in_blocks


def make_sam(**vision: object) -> SamModel:
    """SlimSAM's width and heads on a smaller square; random weights, relative positions among them."""
    torch.manual_seed(0)
    settings = {
        "hidden_size": 168,
        "mlp_dim": 696,
        "image_size": 256,
        "num_hidden_layers": 4,
        "global_attn_indexes": [1, 3],
    }
    sam = SamModel(SamConfig(vision_config={**settings, **vision})).eval()
    with torch.no_grad():
        for name, parameter in sam.vision_encoder.named_parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3 if "rel_pos" in name else 0.05)
    return sam


def replace_attention(sam: SamModel) -> SamModel:
    for layer in sam.vision_encoder.layers:
        layer.attn = RelativeAttention(layer.attn)
    return sam


@pytest.mark.parametrize("block", [2**22, 5000, 1])
@pytest.mark.parametrize("batch", [1, 3])
def test_equals_sam_model(batch: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Global layers and windows (14², padded here from 16² to 28²); however large a block is."""
    monkeypatch.setattr(encoder, "_BLOCK_SCORES", block)
    sam, pixels = make_sam(), torch.randn(batch, 3, 256, 256)
    with torch.no_grad():
        theirs = sam.get_image_embeddings(pixels)
        ours = replace_attention(sam).get_image_embeddings(pixels)
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def test_relative_positions_are_felt() -> None:
    """The test above would prove nothing if they had no part in the result."""
    sam, pixels = replace_attention(make_sam()), torch.randn(1, 3, 256, 256)
    with torch.no_grad():
        with_positions = sam.get_image_embeddings(pixels)
        for name, parameter in sam.vision_encoder.named_parameters():
            if "rel_pos" in name:
                parameter.zero_()
        assert (with_positions - sam.get_image_embeddings(pixels)).abs().max() > 0.01


def test_eager_attention_agrees_too() -> None:
    sam, pixels = make_sam(), torch.randn(2, 3, 256, 256)
    eager = SamModel._from_config(sam.config, attn_implementation="eager").eval()
    eager.load_state_dict(sam.state_dict())
    with torch.no_grad():
        theirs = eager.get_image_embeddings(pixels)
        torch.testing.assert_close(replace_attention(sam).get_image_embeddings(pixels), theirs, rtol=0, atol=1e-4)


def test_names_and_counts_of_parameters_stay() -> None:
    sam = make_sam()
    before = {name: tensor.clone() for name, tensor in sam.state_dict().items()}
    after = replace_attention(sam).state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("attend", [attend_in_blocks, attend_folded])
@pytest.mark.parametrize(("height", "width"), [(7, 7), (5, 9)])
def test_both_forms_equal_the_formula(attend, height: int, width: int) -> None:  # type: ignore[no-untyped-def]
    """Written out: the softmax over keys of q·k/√d + rel_h + rel_w, in float64."""
    torch.manual_seed(1)
    tokens, depth = height * width, 14
    query, key, value = torch.randn(3, 2, 3, tokens, depth)
    rel_h, rel_w = torch.randn(2, 3, height, width, height), torch.randn(2, 3, height, width, width)
    expected = torch.empty(2, tokens, 3, depth, dtype=torch.float64)
    for image, head in product(range(2), range(3)):
        of = image, head
        for q in range(tokens):
            scores = torch.stack(
                [
                    query[of][q].double() @ key[of][k].double() / depth**0.5
                    + rel_h[of][q // width, q % width, k // width].double()
                    + rel_w[of][q // width, q % width, k % width].double()
                    for k in range(tokens)
                ]
            )
            expected[image, q, head] = scores.softmax(0) @ value[of].double()
    found = attend(query, key, value, rel_h, rel_w, depth**-0.5).double()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_scores_stay_within_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest tensor that a global layer makes has no more numbers than a block, or than its own inputs."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                largest = max(largest, result.numel())
            return result

    monkeypatch.setattr(encoder, "_BLOCK_SCORES", 2**16)
    attention = replace_attention(make_sam(image_size=512)).vision_encoder.layers[1].attn
    with Watch():
        attention(torch.randn(1, 32, 32, 168))  # 1,024 tokens: the whole map would be 12 × 2**20 numbers
    assert largest <= 1024 * 3 * 12 * 16  # queries, keys and values, heads of 14 rounded up
