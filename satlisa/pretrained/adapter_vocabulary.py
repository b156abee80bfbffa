"""The vocabulary in an adapter: whole matrices, or PEFT's trained rows, of the input, of the output, or of both.

Qwen3.5 uses one matrix for both. PEFT separates them where `modules_to_save` names only one, or trains a copy of each;
its trained rows (`trainable_token_indices`) stay common to both unless they are of `lm_head` or differ.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from satlisa.errors import SatlisaError
from satlisa.pretrained.tensor_files import check_finite

_INPUT, _OUTPUT = "embed_tokens", "lm_head"
_ROWS = "trainable_tokens"  # in the names of PEFT's trained rows


@dataclass(frozen=True)
class Rows:
    """Rows of a vocabulary matrix: `matrix` (any number of first rows, D) or None, and `single` rows (D,) by token."""

    matrix: Tensor | None = None
    single: dict[int, Tensor] = field(default_factory=dict)

    def get(self, token_id: int) -> Tensor | None:
        """The row of a token (D,) in float32, or None."""
        if token_id in self.single:
            return self.single[token_id].float()
        return None if self.matrix is None or token_id >= len(self.matrix) else self.matrix[token_id].float()

    def differ(self, weight: Tensor, token_id: int) -> bool:
        """Whether a row but that of a token differs from a matrix."""
        if any(
            other != token_id and not torch.equal(row.to(weight.dtype), weight[other])
            for other, row in self.single.items()
        ):
            return True
        if self.matrix is None:
            return False
        count = min(len(self.matrix), len(weight))
        changed = (self.matrix[:count].to(weight.dtype) != weight[:count]).any(dim=1)
        changed[token_id : token_id + 1] = False
        return bool(changed.any())

    def put_into(self, weight: Tensor) -> None:
        """Copy the rows into a matrix; those that it does not have are left out."""
        with torch.no_grad():
            if self.matrix is not None:
                count = min(len(self.matrix), len(weight))
                weight[:count] = self.matrix[:count].to(weight.dtype)
            for token_id, row in self.single.items():
                weight[token_id] = row.to(weight.dtype)


@dataclass(frozen=True)
class Vocabulary:
    """What an adapter changes in the vocabulary matrices; `inputs` is `outputs` where one matrix serves for both."""

    inputs: Rows
    outputs: Rows

    def put_into(self, vlm: Any) -> None:
        """Change the base model in place. Its matrix becomes two where the adapter has two."""
        weight = vlm.get_input_embeddings().weight
        if self.inputs is not self.outputs and vlm.lm_head.weight is weight:
            vlm.lm_head.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
        self.inputs.put_into(weight)
        if vlm.lm_head.weight is not weight:
            self.outputs.put_into(vlm.lm_head.weight)

    def changes_others(self, vlm: Any, token_id: int) -> bool:
        """Whether rows of other tokens than this one differ from the base model's. To be asked before `put_into`."""
        pairs = (self.inputs, vlm.get_input_embeddings().weight), (self.outputs, vlm.lm_head.weight)
        return any(rows.differ(weight, token_id) for rows, weight in pairs)

    def holds(self, token_id: int) -> bool:
        """Whether the adapter has a row for this token."""
        return self.inputs.get(token_id) is not None or self.outputs.get(token_id) is not None

    def seg_rows(self, vlm: Any, token_id: int) -> tuple[Tensor, Tensor]:
        """A token's row of the input and of the output (D,), float32: the adapter's, else the base model's."""
        pairs = (self.inputs, vlm.get_input_embeddings().weight), (self.outputs, vlm.lm_head.weight)
        found = ((rows.get(token_id), weight[token_id].detach().float()) for rows, weight in pairs)
        one, other = (base if row is None else row for row, base in found)
        return one, other


def part_of_vocabulary(name: str) -> str | None:
    """The matrix that a tensor of an adapter is of, by its name; None for another tensor, LoRA's included."""
    parts = name.split(".")
    return None if "lora_" in name else next((part for part in (_INPUT, _OUTPUT) if part in parts), None)


def read_vocabulary(config: Any, state: Mapping[str, Tensor], vlm: Any, source: Path) -> Vocabulary:
    """What an adapter says about the vocabulary.

    Args:
        config: its PEFT configuration; `modules_to_save`, `trainable_token_indices`, `ensure_weight_tying` count.

    Raises:
        SatlisaError: tensors that do not belong to what the configuration names, or the reverse, or are not finite;
            names them.
    """
    weight = vlm.get_input_embeddings().weight
    check_finite({n: tensor.to(weight.dtype) for n, tensor in state.items() if part_of_vocabulary(n)}, source)
    num_rows, width = vlm.get_input_embeddings().weight.shape
    matrices = _matrices(state, width, source)
    saved = _saved_modules(config, source)
    if lost := saved - matrices.keys():
        raise SatlisaError(f"{source}: modules_to_save names {', '.join(sorted(lost))}, but its matrix is not there")
    rows = {part: _single_rows(state, part, ids, width, source) for part, ids in _token_ids(config, num_rows, source)}
    if unnamed := [n for n in state if _ROWS in n and part_of_vocabulary(n) not in rows]:
        raise SatlisaError(f"{source}: trainable_token_indices does not name {unnamed[0]}, which is there")
    is_tied = vlm.lm_head.weight is vlm.get_input_embeddings().weight
    if is_tied:
        matrices = _shared(matrices, common=not saved or bool(getattr(config, "ensure_weight_tying", False)))
        rows = _shared(rows, common=_INPUT in rows)
    none: dict[int, Tensor] = {}
    inputs, outputs = (Rows(matrices.get(part), rows.get(part, none)) for part in (_INPUT, _OUTPUT))
    for part, found in ((_INPUT, inputs), (_OUTPUT, outputs)):
        _check_agreement(found, part, source)
    is_common = is_tied and inputs.matrix is outputs.matrix and inputs.single is outputs.single
    return Vocabulary(inputs, inputs if is_common else outputs)


def _matrices(state: Mapping[str, Tensor], width: int, source: Path) -> dict[str, Tensor]:
    """The whole matrices by part."""
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        part = part_of_vocabulary(name)
        if part is None or _ROWS in name:
            continue
        if not name.endswith("weight") or tensor.shape[1:] != (width,):
            raise SatlisaError(
                f"{source}: {name} {tuple(tensor.shape)}: expected a vocabulary matrix of {width} columns; was it "
                "trained on another base model?"
            )
        if part in found and not torch.equal(found[part], tensor):
            raise SatlisaError(f"{source}: holds two different matrices of {part}; save one of them")
        found[part] = tensor
    return found


def _saved_modules(config: Any, source: Path) -> set[str]:
    """The vocabulary matrices that `modules_to_save` names."""
    named = config.modules_to_save or []
    parts = {str(name).rpartition(".")[2] for name in named} if isinstance(named, list) else {str(named)}
    if other := sorted(parts - {_INPUT, _OUTPUT}):
        raise SatlisaError(
            f"{source}: modules_to_save names {', '.join(other)}; expected {_INPUT} and {_OUTPUT} at most: nothing "
            "else of the base model can be replaced"
        )
    return parts


def _token_ids(config: Any, num_rows: int, source: Path) -> list[tuple[str, list[int]]]:
    """The trained tokens of each part. Rows of the output that are those of the input are PEFT's for both."""
    given = config.trainable_token_indices or {}
    by_part = {str(k).rpartition(".")[2]: v for k, v in given.items()} if isinstance(given, dict) else {_INPUT: given}
    for part, ids in by_part.items():
        valid = isinstance(ids, list) and all(type(i) is int and 0 <= i < num_rows for i in ids)
        if part not in (_INPUT, _OUTPUT) or not valid or len(set(ids)) != len(ids):
            raise SatlisaError(
                f"{source}: trainable_token_indices: expected different tokens below {num_rows} of {_INPUT} or "
                f"{_OUTPUT}, found {str(given)[:100]}"
            )
    if by_part.get(_INPUT) == by_part.get(_OUTPUT):
        by_part.pop(_OUTPUT, None)
    return list(by_part.items())


def _single_rows(state: Mapping[str, Tensor], part: str, ids: list[int], width: int, source: Path) -> dict[int, Tensor]:
    named = {name: t for name, t in state.items() if _ROWS in name and part_of_vocabulary(name) == part}
    if [tuple(tensor.shape) for tensor in named.values()] != [(len(ids), width)]:
        shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in named.items()) or "none"
        raise SatlisaError(
            f"{source}: trainable_token_indices names {len(ids)} tokens of {part}: expected their rows "
            f"({len(ids)}, {width}), found {shapes}"
        )
    return dict(zip(ids, next(iter(named.values())), strict=True))


def _shared(found: dict[str, Any], common: bool) -> dict[str, Any]:
    """Values of both parts as one where they are equal, or where one stands for both (`common`)."""
    if len(found) == 2:
        one, other = found[_INPUT], found[_OUTPUT]
        equal = torch.equal(one, other) if isinstance(one, Tensor) else one is other
        return dict.fromkeys(found, one) if equal else found
    return dict.fromkeys((_INPUT, _OUTPUT), next(iter(found.values()))) if found and common else found


def _check_agreement(rows: Rows, part: str, source: Path) -> None:
    for token_id, row in rows.single.items():
        matrix = rows.matrix
        if matrix is not None and (token_id >= len(matrix) or not torch.equal(matrix[token_id], row)):
            raise SatlisaError(
                f"{source}: holds a matrix of {part} and another row of token {token_id} (trainable_token_indices); "
                "expected one of both, or equal ones"
            )
