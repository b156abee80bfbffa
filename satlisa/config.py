"""Model configuration, `model_config.json`; values are validated on construction."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from satlisa.errors import SatlisaError
from satlisa.runtime.atomic_files import atomic_write
from satlisa.runtime.locations import is_hub_id

DEFAULT_DATASET = "rahuldshetty/satellite-multitask-omni"
DEFAULT_MAX_NEW_TOKENS = 256  # of an answer
_COUNTS = ["vlm_hidden_size", "projector_hidden_size", "sam_prompt_size", "lora_r", "lora_alpha"]
_COUNTS += ["max_seq_length", "max_image_tokens", "max_instances"]
_WEIGHTS = ["text_loss_weight", "bce_loss_weight", "dice_loss_weight"]
_TOO_LARGE = 2**31
INSTANCE_PLACES = ("box", "centre", "none")
"""What an answer may say of each of several objects before its `<SEG>`."""
MERGED_FOLDER = "merged_vlm"
"""Folder of a model directory that holds its VLM, where LoRA was merged into it before the training."""
BASE_OF_OWN_VLM = "base_vlm_model_id"
"""Key of `model_config.json`, beside a `vlm_model_id` in the directory: the model that this VLM was made from."""
_LARGEST_WEIGHT = 1e9
_PACKAGED = Path(__file__).parent / "model_config.json"

# An installed package contains the file; a checkout, also with `pip install -e`, has it in the repository root.
DEFAULT_CONFIG = _PACKAGED if _PACKAGED.exists() else Path(__file__).parent.parent / "model_config.json"


@dataclass
class ModelConfig:
    """Everything in `model_config.json`, which rebuilds a model around its trained parts."""

    vlm_model_id: str = "Qwen/Qwen3.5-0.8B"
    """Hub id or local folder of the vision-language model; `demo:vlm` is the packaged demo backbone.
    One that begins with "." lies in the model directory: `./merged_vlm`, or "." for a merged model."""
    sam_model_id: str = "Zigeng/SlimSAM-uniform-77"
    """Hub id or local folder of the segmenter; `demo:sam` is the packaged demo backbone."""
    seg_token: str = "<SEG>"
    """The token whose hidden state prompts a mask."""
    seg_token_id: int | None = None
    """Its row in the tied embedding; None until the tokenizer is loaded."""
    vlm_hidden_size: int = 1024
    """Width of the text model's hidden states; overwritten by the loaded model's."""
    projector_hidden_size: int = 1024
    """Width between the projector's two layers."""
    sam_prompt_size: int = 256
    """Width of SAM's prompt embeddings; overwritten by the loaded model's."""
    lora_r: int = 16
    """Rank of the LoRA layers."""
    lora_alpha: int = 32
    """LoRA's scale is lora_alpha / lora_r."""
    lora_dropout: float = 0.0
    """Dropout before LoRA, in [0, 1)."""
    lora_target_modules: list[str] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "in_proj_qkv", "in_proj_z", "out_proj"]
    )
    """Names of the language model's Linear layers that carry LoRA: its token mixers."""
    text_loss_weight: float = 1.0
    """Weight of the cross entropy."""
    bce_loss_weight: float = 2.0
    """Weight of the masks' binary cross entropy."""
    dice_loss_weight: float = 0.5
    """Weight of the masks' DICE loss."""
    max_seq_length: int = 512
    """Maximum length of prompt and answer in tokens, image tokens included."""
    max_image_tokens: int = 256
    """Maximum number of tokens per image; larger images are scaled down."""
    max_instances: int = 32
    """Maximum number of `<SEG>` per answer; the largest instances are kept."""
    instance_places: str = "none"
    """What an answer with several `<SEG>` says of each object before its own: its `box`, its `centre`, or `none`.
    The repository's `model_config.json` says `box`; a model directory without the key is older and has `none`."""
    dataset: str = DEFAULT_DATASET
    """Training dataset; the default of infer_dataset.py."""
    seg_tasks: list[str] = field(default_factory=list)
    """Tasks that are answered with masks though their names do not say segmentation; SEG_TASKS of the training."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Unknown keys of the file; kept and written back."""

    def __post_init__(self) -> None:
        for item in fields(self):
            _check_type(item.name, getattr(self, item.name), str(item.type), "model_config.json")
        self._expect("a positive integer", lambda value: 1 <= value < _TOO_LARGE, *_COUNTS)
        self._expect("a token", lambda value: value is None or 0 <= value < _TOO_LARGE, "seg_token_id")
        self._expect("a token such as <SEG>", str.strip, "seg_token")
        self._expect(f"0 to {_LARGEST_WEIGHT:.0e}", lambda value: 0 <= value <= _LARGEST_WEIGHT, *_WEIGHTS)
        self._expect(f"one of {', '.join(INSTANCE_PLACES)}", INSTANCE_PLACES.__contains__, "instance_places")
        self._expect("0 to below 1", lambda value: 0 <= value < 1, "lora_dropout")
        most = self.max_image_tokens
        advice = "; no text would fit beside the image"
        self._expect(
            f"more than max_image_tokens ({most})", lambda value: value > most, "max_seq_length", advice=advice
        )

    def _expect(self, expected: str, holds: Callable[[Any], Any], *names: str, advice: str = "") -> None:
        """Check the values of these names."""
        for name in names:
            if not holds(value := getattr(self, name)):
                found = _shown(value).strip() or "an empty text"
                raise SatlisaError(f"model_config.json: {name}: expected {expected}, found {found}{advice}")

    @classmethod
    def from_json(cls, path: str | Path) -> ModelConfig:
        """Read a file; missing and null keys take the defaults, unknown keys are kept in `extra`.

        Raises:
            SatlisaError: unreadable, not a JSON object, or a value of the wrong type.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:  # RecursionError: nested thousands deep
            raise SatlisaError(f"{path}: not a readable JSON file ({error})") from error
        if not isinstance(content, dict):
            raise SatlisaError(f"{path}: expected a JSON object, found {type(content).__name__}")
        types = {item.name: str(item.type) for item in fields(cls) if item.name != "extra"}
        values = {k: _lenient(content[k], kind) for k, kind in types.items() if content.get(k) is not None}
        length = values.get("max_seq_length")
        if "max_image_tokens" not in values and isinstance(length, int) and 2 <= length <= cls.max_image_tokens:
            values["max_image_tokens"] = length // 2  # the default would leave no room for text
        try:
            return cls(**values, extra={key: value for key, value in content.items() if key not in types})
        except SatlisaError as error:
            raise SatlisaError(str(error).replace("model_config.json", str(path), 1)) from error

    @property
    def is_merged(self) -> bool:
        """Whether the model directory itself is the VLM, with LoRA and `<SEG>` row merged into it (`satlisa.merge`)."""
        return self.vlm_model_id == "."

    @property
    def brings_vlm(self) -> bool:
        """Whether the VLM lies in the model directory."""
        return self.is_merged or self.vlm_model_id.startswith("./")

    def with_own_vlm(self, place: str) -> ModelConfig:
        """The configuration of a model whose VLM lies in its directory, made from the VLM of this one.

        `BASE_OF_OWN_VLM` says what that was, unless it was a folder of this machine.
        """
        extra = dict(self.extra)
        if not self.brings_vlm:
            extra.pop(BASE_OF_OWN_VLM, None)
            if is_hub_id(self.vlm_model_id) or self.vlm_model_id.startswith("demo:"):
                extra[BASE_OF_OWN_VLM] = self.vlm_model_id
        return replace(self, vlm_model_id=place, extra=extra)

    def to_dict(self) -> dict[str, Any]:
        """All keys as they are written to the file, unknown ones included."""
        known = asdict(self)
        if not self.seg_tasks:
            del known["seg_tasks"]
        return {**known.pop("extra"), **known}

    def save(self, path: str | Path) -> None:
        """Write the file atomically."""
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"
        # Lone surrogates, which JSON may contain, have no UTF-8; backslashreplace writes them as JSON's own \udXXX.
        atomic_write(Path(path), text.encode(errors="backslashreplace"))


def comma_list(text: str) -> tuple[str, ...]:
    """The names in a comma-separated list, without spaces around them and without empty ones."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _shown(value: Any) -> str:
    """A value for a message, shortened: an integer may have thousands of digits."""
    text = hex(value) if isinstance(value, int) and abs(value) > 2**64 else str(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _lenient(value: Any, annotation: str) -> Any:
    """Accept equivalents that other programs write: 32.0 for 32, a name for a list of one."""
    if annotation in ("int", "int | None") and isinstance(value, float) and value.is_integer():
        return int(value)
    return [value] if annotation == "list[str]" and isinstance(value, str) else value


def _check_type(name: str, value: Any, annotation: str, source: str) -> None:
    """Refuse a value of the wrong type; an int is accepted for a float."""
    kinds: dict[str, tuple[type, ...]] = {
        "str": (str,),
        "int": (int,),
        "float": (int, float),
        "int | None": (int, type(None)),
        "list[str]": (list,),
        "dict[str, Any]": (dict,),
        "bool": (bool,),
    }
    wrong = not isinstance(value, kinds[annotation]) or (isinstance(value, bool) and annotation != "bool")
    if annotation == "list[str]" and not wrong:
        wrong = not all(isinstance(entry, str) for entry in value) or (not value and name != "seg_tasks")
    if wrong:
        raise SatlisaError(f"{source}: {name}: expected {annotation}, found {value!r}")
