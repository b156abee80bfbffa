"""Match the tensors of another program's checkpoint to ours, by prefix, name, shape and order.

Ambiguous matches, and matches that contradict the names, are refused with the expected and found names.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from torch import Tensor

from satlisa.errors import SatlisaError
from satlisa.pretrained.tensor_files import list_tensors

State = dict[str, Tensor]

_MOST_DOTS = 20  # of a prefix

# segment-anything's names in the mask decoder (regular expressions) → transformers' names
_SAM_NAMES = (
    (r"^output_upscaling\.0\.", "upscale_conv1."),
    (r"^output_upscaling\.1\.", "upscale_layer_norm."),
    (r"^output_upscaling\.3\.", "upscale_conv2."),
    (r"\.norm(\d)\.", r".layer_norm\1."),
    (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
    (r"^((?:output_hypernetworks_mlps\.\d+|iou_prediction_head)\.)layers\.0\.", r"\1proj_in."),
    (r"^((?:output_hypernetworks_mlps\.\d+|iou_prediction_head)\.)layers\.2\.", r"\1proj_out."),
    (r"^((?:output_hypernetworks_mlps\.\d+|iou_prediction_head)\.)layers\.1\.", r"\1layers.0."),
)
# Name components that define a tensor's role; tensors with different roles never match.
_ROLES = {
    role: re.compile(pattern)
    for role, pattern in {
        "query": r"(to_)?(q|query)(_?proj|_?lin(ear)?)?",
        "key": r"(to_)?(k|key)(_?proj|_?lin(ear)?)?",
        "value": r"(to_)?(v|value)(_?proj|_?lin(ear)?)?",
        "out": r"(to_)?(o|out)(_?proj|_?lin(ear)?)?",
        "weight": "weight",
        "bias": "bias",
    }.items()
}

_EXCLUSIVE = ({"query", "key", "value", "out"}, {"weight", "bias"})


def find_state_dicts(loaded: Any) -> list[State]:
    """All state dicts nested in a loaded file, outermost first. Scalars are ignored: they are counters, not weights."""
    if not isinstance(loaded, Mapping):
        return []
    own = {str(name): value for name, value in loaded.items() if isinstance(value, Tensor) and value.ndim}
    inner = [state for value in loaded.values() for state in find_state_dicts(value)]
    return [own, *inner] if own else inner


def match_unique(expected: Mapping[str, Tensor], states: Sequence[State], source: str) -> State:
    """The only one of several state dicts that matches, renamed to the expected names; errors as in `match_state`."""
    matched, refusal = [], _mismatch(expected, {}, source)
    for state in states:
        try:
            matched.append(match_state(expected, state, source))
        except SatlisaError as error:
            refusal = error
    return _only(matched, refusal)


def match_state(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], source: str) -> State:
    """Rename the tensors of a foreign state dict to the expected names.

    Tried first: the expected names, or segment-anything's names for them, after any prefix; other tensors are ignored.
    Tried last, for each shape: the names if they are the expected ones, else the order.

    Raises:
        SatlisaError: shapes that do not pair up, more than one match, or an order that contradicts the names; lists
            expected and found names.
    """
    refusal = _mismatch(expected, found, source)
    named = [state for state in _renamings(found, len(expected)) if _fits(expected, state)]
    return _only(named, refusal) if named else _match_by_order(expected, found, refusal)


def _only(states: Sequence[State], refusal: SatlisaError) -> State:
    """The single distinct state dict of a list, in which the same tensors may occur repeatedly; else `refusal`."""
    distinct = {tuple(sorted((name, tensor.data_ptr()) for name, tensor in state.items())): state for state in states}
    if len(distinct) != 1:
        raise refusal
    return next(iter(distinct.values()))


def _fits(expected: Mapping[str, Tensor], state: State) -> bool:
    return state.keys() == expected.keys() and all(state[name].shape == t.shape for name, t in expected.items())


def _renamings(found: Mapping[str, Tensor], count: int) -> Iterator[State]:
    """For each prefix that `count` tensors have: these, with it stripped; then the same under transformers' names."""
    dots = ((name, dot.end()) for name in found for dot in islice(re.finditer(r"^|\.", name), _MOST_DOTS))
    prefixes = Counter(name[:end] for name, end in dots)
    for prefix in (prefix for prefix, shared_by in prefixes.items() if shared_by == count):
        bare = {name.removeprefix(prefix): tensor for name, tensor in found.items() if name.startswith(prefix)}
        yield bare
        yield {_translate(name): tensor for name, tensor in bare.items()}


def _translate(name: str) -> str:
    """segment-anything's name of a mask decoder tensor → transformers' name."""
    for pattern, replacement in _SAM_NAMES:
        name, changed = re.subn(pattern, replacement, name)
        if changed and pattern.startswith("^"):
            break  # layers.1 → layers.0 must not be translated again
    return name


def _match_by_order(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], refusal: SatlisaError) -> State:
    prefix = _common_prefix(found)
    bare = {name.removeprefix(prefix): tensor for name, tensor in found.items()}
    wanted, names = _by_shape(expected), _by_shape(bare)
    if {shape: len(group) for shape, group in wanted.items()} != {shape: len(group) for shape, group in names.items()}:
        raise refusal
    matched: State = {}
    for shape, targets in wanted.items():
        sources = targets if set(targets) == set(names[shape]) else names[shape]
        if _contradicts(targets, sources):
            raise refusal
        matched.update({target: bare[name] for target, name in zip(targets, sources, strict=True)})
    return matched


def _common_prefix(found: Mapping[str, Tensor]) -> str:
    """The longest dotted prefix that all names share."""
    prefix = ""
    while True:
        heads = {name.removeprefix(prefix).partition(".")[:2] for name in found}
        if len(heads) != 1 or not (head := heads.pop())[1]:
            return prefix
        prefix += "".join(head)


def _by_shape(state: Mapping[str, Tensor]) -> dict[tuple[int, ...], list[str]]:
    groups: dict[tuple[int, ...], list[str]] = {}
    for name, tensor in state.items():
        groups.setdefault(tuple(tensor.shape), []).append(name)
    return groups


def _contradicts(targets: Sequence[str], names: Sequence[str]) -> bool:
    """Whether names contradict the order: roles differ, or the indices of otherwise equal names decrease."""
    numbers: dict[str, list[list[int]]] = {}
    for target, name in zip(targets, names, strict=True):
        meant, said = _roles(target), _roles(name)
        if not _agree(meant, said):
            return True
        numbers.setdefault(re.sub(r"\d+", "#", name), []).append([int(digits) for digits in re.findall(r"\d+", name)])
    return any(series != sorted(series) for series in numbers.values())


def _agree(one: set[str], other: set[str]) -> bool:
    """Whether two sets of roles agree in every category that both name."""
    shared = [(one & kinds, other & kinds) for kinds in _EXCLUSIVE]
    return all(a == b for a, b in shared if a and b)


def _roles(name: str) -> set[str]:
    parts = name.split(".")
    return {role for role, pattern in _ROLES.items() if any(pattern.fullmatch(part) for part in parts)}


def _mismatch(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], source: str) -> SatlisaError:
    return SatlisaError(
        f"{source}: cannot tell which tensor is which.\nexpected: {list_tensors(expected, len(expected))}\n"
        f"found: {list_tensors(found, len(found))}\nRename the tensors to the expected names."
    )
