"""Batches on another device."""

import torch

from satlisa.demo.fit import moved


def test_every_tensor_of_a_batch_is_moved() -> None:
    tensor = torch.zeros(2)
    found = moved([tensor, {"boxes": tensor, "kind": "box"}, (tensor, 3)], torch.device("meta"))
    assert found[0].is_meta and found[1]["boxes"].is_meta and found[2][0].is_meta
    assert found[1]["kind"] == "box" and found[2][1] == 3 and isinstance(found[2], tuple)
