"""README.md of a published model: what it does, how to use it, how it was trained and evaluated, and its limits."""

from collections.abc import Iterator, Mapping
from typing import Any

from huggingface_hub import ModelCardData
from torch import Tensor

from satlisa.data.mixing import parse_datasets
from satlisa.evaluation.report import escape
from satlisa.evaluation.tables import markdown_table
from satlisa.pretrained.model_directory import ADAPTER_FOLDER, DECODER_FILE, PROJECTOR_FILE, SEG_ROW_FILE
from satlisa.pretrained.tensor_files import read_tensors
from satlisa.publish.local_paths import Files, find_local_path
from satlisa.publish.parts import CURVE_FILE, Model
from satlisa.publish.results import Evaluation, Score

_HUB = "https://huggingface.co"
_SETTINGS = (
    *("INIT_FROM", "EPOCHS", "MAX_STEPS", "BATCH_SIZE", "GRAD_ACCUM", "LEARNING_RATE", "PROJECTOR_LR_FACTOR"),
    *("WARMUP_RATIO", "WEIGHT_DECAY", "MAX_GRAD_NORM", "MAX_SAMPLES", "SEG_TASKS", "PRECISION", "SEED"),
)
_CONFIG = (
    *("lora_r", "lora_alpha", "lora_dropout", "text_loss_weight", "bce_loss_weight", "dice_loss_weight"),
    *("max_seq_length", "max_image_tokens", "max_instances", "instance_places"),
)


def card(data: ModelCardData, model: Model, repo: str, files: Files, evaluation: Evaluation | None) -> str:
    """The text of README.md.

    Args:
        files: what is published with it.
    """
    parts = [
        f"# {repo.split('/')[1]}",
        _about(model),
        _example(evaluation),
        _usage(repo, with_code="inference.py" in files),
        _evaluation(evaluation),
        _training(model, CURVE_FILE in files),
        _parameters(model),
        _limits(model, evaluation),
    ]
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(part for part in parts if part) + "\n"


def _about(model: Model) -> str:
    config, vlm = model.config, _linked(model.vlm) if model.vlm else "a vision-language model"
    copied = ", of which this repository holds a copy with LoRA merged" if model.vlm_folder else ""
    adapter = "" if model.is_merged else f"{' and' if copied else ' with'} a LoRA adapter"
    return (
        "Answers questions about satellite images in text, and where an answer holds the token "
        f"`{config.seg_token}`, draws a mask. It is {vlm}{copied}{adapter}; the hidden state at each "
        f"`{config.seg_token}`, projected, prompts the mask decoder of {_linked(config.sam_model_id)}. Several objects "
        f"have a mask each (training gave at most {config.max_instances}), or one for all, as the question asks."
    )


def _linked(name: str) -> str:
    """A base model with its address, or what it is."""
    return f"`{name}` (a tiny model of the package)" if name.startswith("demo:") else f"[{name}]({_HUB}/{name})"


def _example(evaluation: Evaluation | None) -> str:
    if evaluation is None or evaluation.example is None:
        return ""
    entry, pictures = evaluation.example, evaluation.pictures
    table = markdown_table([list(pictures), [f"![{name}]({path})" for name, path in pictures.items()]], len(pictures))
    iou = entry.get("iou")
    chosen = f" IoU {iou:.3f}, the median of the report's pictures." if iou is not None else ""
    asked, said = (escape(str(entry.get(key) or "–")) for key in ("prompt", "output"))
    return "\n".join([*table, "", f"**{asked}** → {said}{chosen}"])


def _usage(repo: str, with_code: bool) -> str:
    parts = [_WITH_SATLISA, *([_WITH_ITS_CODE] if with_code else [])]
    return "## Use it\n\n" + "\n\n".join(part.strip().replace("OWNER/NAME", repo) for part in parts)


_WITH_SATLISA = """
With satlisa installed (`bash setup.sh` in its repository), answers in text:

```python
from satlisa import generate_text, load_model

model = load_model("OWNER/NAME")
print(generate_text(model, "sat.jpg", "What land cover type is this?"))
```

And masks, of the image's size, 0 and 255:

```python
from satlisa import generate_segmentation, load_model

model = load_model("OWNER/NAME")
text, mask = generate_segmentation(model, "sat.jpg", "Segment the buildings")
if mask is not None:  # an answer without <SEG> has none
    mask.save("mask.png")
```
"""
_WITH_ITS_CODE = """
Without satlisa installed, by the code in this repository (`pip install -r requirements.txt` in it):

```python
import sys

from huggingface_hub import snapshot_download

folder = snapshot_download("OWNER/NAME")
sys.path.insert(0, folder)
from inference import generate_text, load_model

model = load_model(folder)
print(generate_text(model, "sat.jpg", "What land cover type is this?"))
```

```bash
hf download OWNER/NAME --local-dir model
python model/inference.py --model_dir model --image sat.jpg --prompt "Segment the buildings" --output_mask mask.png
```
"""


def _evaluation(evaluation: Evaluation | None) -> str:
    if evaluation is None:
        return "## Evaluation\n\nNo evaluation was published with this model."
    rows = [["Task", "Samples", "Score", "Value", "95 % interval", "Best constant answer"]]
    rows += [_score_row(score) for score in evaluation.scores]
    kind = {"hub": "", "demo": ", synthetic scenes that satlisa makes", "local": ", a local dataset"}[evaluation.kind]
    errors = f" {evaluation.errors} samples could not be read or answered and have no score." * bool(evaluation.errors)
    return "\n".join(
        [
            "## Evaluation",
            "",
            f"On {escape(evaluation.dataset)}{kind}, {escape(evaluation.split)} split. The model answers freely: it is "
            "given the image and the prompt alone, and its own words decide whether a mask comes." + errors,
            "",
            *markdown_table(rows),
            "",
            "gIoU is the mean of the samples' IoU, cIoU the sum of intersections over the sum of unions. Intervals are "
            "bootstrap intervals over samples; they do not tell how another training or another dataset would score.",
        ]
    )


def _score_row(score: Score) -> list[str]:
    interval = "{:.3f} to {:.3f}".format(*score.interval) if score.interval else "–"
    constant = "–" if score.constant is None else f"{score.constant:.3f}"
    return [escape(score.task), str(score.samples), score.name, f"{score.value:.3f}", interval, constant]


def _training(model: Model, has_curve: bool) -> str:
    settings = model.summary.get("settings") or {}
    rows = [[f"`{name}`", _value(settings[name].get("value"))] for name in _SETTINGS if name in settings]
    rows += [[f"`{name}`", _value(getattr(model.config, name))] for name in _CONFIG]
    lines = ["## Training", "", _data(model) + _run(model.summary), "", *markdown_table([["Setting", "Value"], *rows])]
    return "\n".join(lines + (["", f"![Loss by step]({CURVE_FILE})"] if has_curve else []))


def _value(value: Any) -> str:
    text = "–" if value in ("", None) else str(value)
    return "(a local place)" if find_local_path(text) else escape(text)


def _data(model: Model) -> str:
    names = [f"[{name}]({_HUB}/datasets/{name})" for name in model.datasets]
    if "demo" in parse_datasets(model.config.dataset or "none"):
        names.append("synthetic scenes that satlisa makes (`demo`)")
    if model.local_dataset:
        names.append(f"a local dataset, {escape(model.local_dataset)}")
    return f"Trained on {' and '.join(names)}."


def _run(summary: Mapping[str, Any]) -> str:
    """Steps, time, machine, and rows that were not used."""
    if not summary:
        return ""
    hardware, versions = summary.get("hardware") or {}, summary.get("versions") or {}
    skipped = sum(int(line.split()[0]) for line in summary.get("skipped_rows") or [])
    text = f" {summary.get('steps', '?')} optimizer steps in {float(summary.get('seconds') or 0) / 60:.0f} minutes"
    text += f" on {escape(str(hardware.get('name', '?')))} ({escape(str(hardware.get('dtype', '?')))})"
    text += f", torch {versions.get('torch', '?')}, transformers {versions.get('transformers', '?')}."
    return text + f" {skipped} rows could not be used." * bool(skipped)


def _parameters(model: Model) -> str:
    """Those of training's summary; without one, those of the trained parts, counted in the files."""
    found = model.summary.get("parameters") or _count(model)
    rows = [["Part", "Parameters", "Trained"]]
    rows += [[escape(part), f"{n['parameters']:,}", f"{n['trainable']:,}"] for part, n in found.items()]
    if not rows[1:]:
        return ""
    total, trained = (sum(n[key] for n in found.values()) for key in ("parameters", "trainable"))
    rows += [["**all**", f"{total:,}", f"{trained:,}"]] if model.summary.get("parameters") else []
    return "\n".join(["## Parameters", "", *markdown_table(rows)])


def _count(model: Model) -> dict[str, dict[str, int]]:
    folder = model.folder
    weights = {
        "LoRA": [*(folder / ADAPTER_FOLDER).glob("adapter_model.*")],
        "<SEG> row": [folder / SEG_ROW_FILE],
        "projector": [*folder.glob(PROJECTOR_FILE.replace(".pt", ".*"))],
        "SlimSAM mask decoder": [*folder.glob(DECODER_FILE.replace(".pt", ".*"))],
    }
    counts = {
        part: sum(state.numel() for path in paths if path.is_file() for state in _tensors(read_tensors(path)))
        for part, paths in weights.items()
    }
    return {part: {"parameters": count, "trainable": count} for part, count in counts.items() if count}


def _tensors(content: Any) -> Iterator[Tensor]:
    """All tensors of a file, at any depth."""
    if isinstance(content, Tensor):
        yield content
    elif isinstance(content, Mapping):
        for value in content.values():
            yield from _tensors(value)


def _limits(model: Model, evaluation: Evaluation | None) -> str:
    config = model.config
    lines = [
        f"The language model sees an image in at most {config.max_image_tokens} tokens of 32 × 32 pixels, and larger "
        "images are scaled down, for the masks too: small objects vanish. Cut large images into tiles.",
        "It answers the kinds of questions that it was trained on. Other questions, sensors, ground resolutions and "
        "regions were not tried unless the evaluation says so.",
        "Text and masks can be wrong without a sign of it. The score of a mask is SAM's own guess, which no loss "
        "trains: it is no estimate of the IoU.",
    ]
    if model.is_demo:
        lines.append("Its base models are tiny and know synthetic scenes and little else: it is a demonstration.")
    if evaluation is None:
        lines.append("How well it does was not published.")
    return "\n".join(["## Limits", "", *(f"- {line}" for line in lines)])
