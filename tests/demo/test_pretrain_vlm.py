"""The VLM's pretraining: what a reader sees, and a few steps of it."""

import pytest
import torch

from satlisa.demo import pretrain_vlm
from satlisa.demo.fit import Loop
from satlisa.demo.lessons import Writer, ask_list
from satlisa.demo.pretrain_tower import DenseHead
from satlisa.demo.pretrain_vlm import Reader, score_vlm, train_vlm
from satlisa.demo.tiny_models import make_processor, new_vlm, train_tokenizer
from tests.helpers.scenes import PHRASES, unseen_scenes


@pytest.fixture
def processor():
    return make_processor(train_tokenizer(PHRASES))


@pytest.fixture(scope="module")
def scenes():
    return [scene for scene in unseen_scenes(12) if len(scene.plan.objects) > 1][:3]


@torch.no_grad()
def test_a_reader_sees_what_the_model_sees(processor, scenes, monkeypatch):
    """Against the model's own forward pass, one lesson at a time; short and long ones in one batch or in two."""
    model, writer = new_vlm(processor, 0).eval(), Writer(processor)
    lessons = [
        writer.write([ask_list(scene.plan, form)]) for scene, form in zip(scenes, ("box", "none", "box"), strict=True)
    ]
    batch = writer.collate([x.pixels for x in scenes], [x.plan for x in scenes], lessons)
    states = Reader(model, writer)(batch)[1]
    monkeypatch.setattr(pretrain_vlm, "_GROUPS", 1)
    _, in_one, _, targets = Reader(model, writer)(batch)
    assert torch.allclose(states, in_one, atol=1e-4)
    assert len(targets) == sum(int((x.labels >= 0).sum()) for x in lessons)
    embedding = model.get_input_embeddings().weight
    embedding[writer.marker] = embedding[: writer.marker].mean(dim=0)
    expected = []
    for row, lesson in sorted(enumerate(lessons), key=lambda pair: len(pair[1].input_ids)):
        inputs = processor.image_processor(images=[scenes[row].image], return_tensors="pt")
        hidden = model.model(
            input_ids=lesson.input_ids[None],
            attention_mask=torch.ones(1, len(lesson.input_ids), dtype=torch.int64),
            position_ids=lesson.position_ids[:, None],
            mm_token_type_ids=(lesson.input_ids == model.config.image_token_id).long()[None],
            **inputs,
        ).last_hidden_state[0]
        expected.append(hidden[[place for place, _ in lesson.marked]])
    assert torch.allclose(states, torch.cat(expected), atol=1e-4)


def test_text_side_tower_and_head_are_trained(processor, scenes, monkeypatch):
    monkeypatch.setattr(pretrain_vlm, "BATCH_SIZE", 4)
    model, head = new_vlm(processor, 0), DenseHead(192)
    parameters = [*model.model.visual.parameters(), *model.model.language_model.parameters(), *head.parameters()]
    before = [parameter.detach().clone() for parameter in parameters]
    train_vlm(model, head, Writer(processor), scenes, [], 2, 0, Loop())
    changed = [not torch.equal(*pair) for pair in zip(before, parameters, strict=True)]
    assert sum(changed) > 0.5 * len(changed) and changed[0] and changed[-1]
    scores = score_vlm(model, processor, scenes[:1])
    assert "boxes with IoU 0.5" in scores and all(0 <= value <= 1 for value in scores.values())
