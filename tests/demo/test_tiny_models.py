"""The tiny models' tokenizer."""

from satlisa.demo.tiny_models import train_tokenizer
from tests.helpers.scenes import PHRASES


def test_tokenizer_training_is_repeatable_and_small():
    one, two = (train_tokenizer(PHRASES * 2) for _ in range(2))
    assert one.get_vocab() == two.get_vocab()
    assert 256 + 9 < len(one) <= 700  # every byte, the added tokens, and some merges
    assert len(one(PHRASES[0]).input_ids) < len(PHRASES[0])
