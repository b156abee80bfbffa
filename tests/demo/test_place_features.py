"""An object's place as numbers."""

import torch

from satlisa.demo.place_features import LABELS, PAIRS, WIDTH, frequencies, place_features
from satlisa.demo.tiny_models import new_sam


def test_the_centre_is_encoded_as_sam_encodes_a_point():
    sam = new_sam(0)
    sam.shared_image_embedding.positional_embedding.data.copy_(frequencies())
    box = torch.tensor([[0.2, 0.3, 0.4, 0.7]])
    point = torch.tensor([[[[0.3 * 256, 0.5 * 256]]]])
    expected = sam.shared_image_embedding(point, (256, 256))[0, 0]
    assert torch.allclose(place_features(box, torch.tensor([0]))[:, : 2 * PAIRS], expected, atol=1e-5)


def test_size_and_label_follow():
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.25]]).repeat(2, 1)
    features = place_features(boxes, torch.arange(2))
    assert features.shape == (2, WIDTH)
    assert features[:, 2 * PAIRS : 2 * PAIRS + 2].tolist() == [[2.0, 1.0]] * 2
    assert features[:, -len(LABELS) :].tolist() == [[1, 0], [0, 1]]


def test_frequencies_are_always_the_same():
    torch.manual_seed(1)
    first = frequencies()
    torch.manual_seed(2)
    assert torch.equal(first, frequencies()) and 0.7 < first.std() < 1.3
