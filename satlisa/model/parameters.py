"""Parameter counts, by part of the model."""

from collections.abc import Iterable

from satlisa.model.satlisa import SatLisa

TRAINED = ("LoRA", "<SEG> row", "projector", "SlimSAM mask decoder")
_PARTS = ("VLM", "LoRA", "<SEG> row", "projector", "SlimSAM encoder", "SlimSAM prompt encoder", "SlimSAM mask decoder")


def part_of(parameter_name: str) -> str:
    """The part of the figure (docs/architecture.md#model) that a parameter of the model belongs to."""
    for marker, part in {
        "lora_": "LoRA",
        "seg_row": "<SEG> row",
        "projector.": "projector",
        "sam.mask_decoder.": "SlimSAM mask decoder",
        "sam.vision_encoder.": "SlimSAM encoder",
        "sam.": "SlimSAM prompt encoder",
    }.items():
        if marker in parameter_name:
            return part
    return "VLM"


def count_parameters(model: SatLisa) -> dict[str, tuple[int, int]]:
    """(all, trainable) parameters of each part, tied weights counted once."""
    counts: dict[str, tuple[int, int]] = dict.fromkeys(_PARTS, (0, 0))
    for name, parameter in model.named_parameters():
        total, trainable = counts[part_of(name)]
        number = parameter.numel()
        counts[part_of(name)] = (total + number, trainable + number * parameter.requires_grad)
    return counts


def parameter_table(counts: dict[str, tuple[int, int]]) -> str:
    """The counts as a text table: part, parameters, trainable, and the trainable ones' share of all parameters."""
    total, trained = (sum(column) for column in zip(*counts.values(), strict=True))
    rows: Iterable[tuple[str, tuple[int, int]]] = [*counts.items(), ("total", (total, trained))]
    lines = [f"{'part':<24}{'parameters':>14}{'trainable':>14}{'share':>9}"]
    lines += [f"{part:<24}{n:>14,}{t:>14,}{t / max(total, 1):>9.2%}" for part, (n, t) in rows]
    return "\n".join(lines)
