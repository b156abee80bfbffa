"""Device, precision and batch size, decided in one place from what the machine reports."""

from dataclasses import dataclass

import torch

from satlisa.errors import SatlisaError

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Machine:
    """What torch reports about a machine; tests pass machines of their own.

    `capability`: CUDA compute capability of the device, (major, minor); None without CUDA.
    """

    capability: tuple[int, int] | None = None
    gpu_name: str = ""
    num_gpus: int = 0
    has_mps: bool = False


@dataclass(frozen=True)
class Hardware:
    """What a run uses: `dtype` of frozen weights and autocast, default `batch_size`, `name` for messages."""

    device: torch.device
    dtype: torch.dtype
    batch_size: int
    name: str


def probe(index: int = 0) -> Machine:
    """What torch reports about CUDA device `index` and MPS of this machine."""
    has_mps = torch.backends.mps.is_available()
    if not torch.cuda.is_available() or index >= torch.cuda.device_count():
        return Machine(num_gpus=torch.cuda.device_count() if torch.cuda.is_available() else 0, has_mps=has_mps)
    properties = torch.cuda.get_device_properties(index)
    return Machine(
        capability=(properties.major, properties.minor),
        gpu_name=properties.name,
        num_gpus=torch.cuda.device_count(),
        has_mps=has_mps,
    )


def detect(device: str = "auto", precision: str = "auto", machine: Machine | None = None) -> Hardware:
    """Choose device, precision and batch size (docs/architecture.md#training-defaults).

    The precision follows the compute capability, not `torch.cuda.is_bf16_supported()`, which is True on a T4, where
    bf16 is emulated.

    Args:
        device: auto, cpu, mps, cuda, cuda:N or N; cpu:0 and mps:0 are cpu and mps, as torch names them.
        precision: auto, fp32, fp16 or bf16.
        machine: the machine to decide for; by default this one.

    Raises:
        SatlisaError: a device that does not exist here, or a precision that it does not support.
    """
    kind, _, index = (f"cuda:{device}" if device.isdigit() else device).partition(":")
    if kind in ("cpu", "mps") and index == "0":
        index = ""
    if kind not in ("auto", "cpu", "mps", "cuda") or (index and not (kind == "cuda" and index.isdigit())):
        raise SatlisaError(f"device: expected auto, cpu, mps, cuda or cuda:N, found '{device}'")
    machine = probe(int(index or 0)) if machine is None else machine
    if kind == "auto":
        kind = "cuda" if machine.capability else "mps" if machine.has_mps else "cpu"
    if kind == "cuda" and machine.capability is None:
        raise SatlisaError(f"device: '{device}' requested, but {machine.num_gpus} CUDA devices found; use cpu")
    if kind == "mps" and not machine.has_mps:
        raise SatlisaError("device: 'mps' requested, but this machine has none; use cpu")
    modern = kind == "cuda" and machine.capability is not None and machine.capability >= (8, 0)
    dtype = _precision(precision, kind, modern)
    name = machine.gpu_name if kind == "cuda" else {"mps": "Apple GPU", "cpu": "CPU"}[kind]
    where = torch.device(f"{kind}:{index}" if index else kind)
    return Hardware(where, dtype, 2 if modern else 1, name)


def _precision(precision: str, kind: str, modern: bool) -> torch.dtype:
    """The dtype asked for, or the best one. MPS and CPU use float32, in which the gated delta-net is verified."""
    if precision not in ("auto", *DTYPES):
        raise SatlisaError(f"precision: expected auto, {', '.join(DTYPES)}, found '{precision}'")
    if precision == "auto":
        return torch.float32 if kind != "cuda" else torch.bfloat16 if modern else torch.float16
    if precision == "fp16" and kind != "cuda":
        raise SatlisaError(
            f"precision: fp16 needs CUDA (its gradients are scaled there), found {kind}; use fp32 or bf16"
        )
    return DTYPES[precision]


def dtype_name(dtype: torch.dtype) -> str:
    """The short name of a dtype: bfloat16."""
    return str(dtype).removeprefix("torch.")
