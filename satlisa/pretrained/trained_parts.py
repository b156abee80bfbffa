"""The parts that are trained beside the VLM, as files: projector, mask decoder, `<SEG>` row.

Other programs name the same tensors differently; `state_matching` maps them to ours, or refuses.
"""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from satlisa.errors import SatlisaError
from satlisa.pretrained.state_matching import State, find_state_dicts, match_unique
from satlisa.pretrained.tensor_files import check_finite, list_tensors, read_tensors

_WIDEST_PROJECTOR = 2**15
_MOST_OF_A_PROJECTOR = 20  # tensors
_MAX_SHOWN = 3


def read_states(path: Path) -> list[State]:
    """All state dicts in a `.pt` file, at any nesting depth."""
    loaded = read_tensors(path)
    states = find_state_dicts(loaded)
    if not states:
        keys = list(loaded) if isinstance(loaded, Mapping) else type(loaded).__name__
        raise SatlisaError(f"{path}: expected a state dict of tensors, found {keys}")
    return states


def read_seg_row(path: Path, width: int) -> Tensor | None:
    """The `<SEG>` row (width,) of our own file; None where there is none (docs/architecture.md#model-directory)."""
    if not path.exists():
        return None
    state = read_tensors(path)
    row: Tensor | None = state.get("seg_row")
    if row is None or row.shape != (width,) or not row.is_floating_point():
        shapes = {name: tuple(tensor.shape) for name, tensor in list(state.items())[:_MAX_SHOWN]}
        raise SatlisaError(
            f"{path}: expected seg_row ({width},), found {shapes}; was it trained on another base model?"
        )
    check_finite({"seg_row": row.float()}, path)
    return row


def projector_hidden_size(path: Path, states: list[State], width: int, prompt_size: int, configured: int) -> int:
    """Hidden width h of a projector, from the shapes of its two matrices, (h, width) and (prompt_size, h)."""
    if unlike := [kind for state in states if (kind := _other_projector(state, width, prompt_size))]:
        raise SatlisaError(
            f"{path}: expected a projector Linear({width}, h) · GELU · Linear(h, {prompt_size}), found {unlike[0]}: "
            "such a projector is not supported"
        )
    for state in states:
        shapes = {tuple(tensor.shape) for tensor in state.values() if tensor.ndim == 2}
        sizes = {h for h, entry in shapes if entry == width and (prompt_size, h) in shapes and h <= _WIDEST_PROJECTOR}
        if sizes:
            return configured if configured in sizes else min(sizes)
    found = "; ".join(list_tensors(state) for state in states[:_MAX_SHOWN])
    raise SatlisaError(
        f"{path}: expected two matrices that map {width} → h → {prompt_size}, found {found}; "
        "was it trained on another base model?"
    )


def _other_projector(state: State, width: int, prompt_size: int) -> str:
    """What makes a chain of layers from `width` to `prompt_size` another projector than ours; "" for anything else."""
    matrices = [tensor for tensor in state.values() if tensor.ndim == 2]
    inputs, outputs = {matrix.shape[1] for matrix in matrices}, {len(matrix) for matrix in matrices}
    is_chain = {width} >= inputs - outputs and {prompt_size} >= outputs - inputs
    if not is_chain or not 0 < len(state) <= _MOST_OF_A_PROJECTOR:
        return ""
    vectors = len(state) - len(matrices)
    if len(matrices) == 2 and vectors == 2:
        return ""
    kind = f"{len(matrices)} linear layer" + "s" * (len(matrices) != 1)
    extra = {True: " and a normalization besides", False: ""}[vectors > len(matrices)]
    return f"{kind}{extra}{'' if vectors else ' and no bias'} ({list_tensors(state)})"


def match_part(module: nn.Module, states: list[State], path: Path) -> State:
    """The tensors of a module in a file's state dicts, by the module's names and in its dtypes.

    Args:
        module: may be on the meta device.

    Raises:
        SatlisaError: tensors that do not fit, are integers, or not finite.
    """
    expected = module.state_dict()
    matched = match_unique(expected, states, str(path))
    if wrong := [name for name, tensor in matched.items() if not tensor.is_floating_point()]:
        raise SatlisaError(f"{path}: {wrong[0]}: expected floating point numbers, found {matched[wrong[0]].dtype}")
    state = {name: tensor.to(expected[name].dtype) for name, tensor in matched.items()}
    check_finite(state, path)
    return state
