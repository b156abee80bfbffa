"""Device, precision and batch size, decided in one place from what the machine reports."""

import logging
import shutil
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import torch

from satlisa.errors import SatlisaError, first_line

logger = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Machine:
    """What torch reports about a machine; tests pass machines of their own.

    `capability`: CUDA compute capability of the device, (major, minor); None without CUDA. `cuda_fault`: why a torch
    built for CUDA cannot use the NVIDIA GPU that is there, as with a driver that is too old; else empty.
    """

    capability: tuple[int, int] | None = None
    gpu_name: str = ""
    num_gpus: int = 0
    has_mps: bool = False
    cuda_fault: str = ""


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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a reason for False; `_cuda_fault` asks for it
        has_cuda = torch.cuda.is_available()
    if not has_cuda:
        return Machine(has_mps=has_mps, cuda_fault=_cuda_fault())
    if index >= torch.cuda.device_count():
        return Machine(num_gpus=torch.cuda.device_count(), has_mps=has_mps)
    properties = torch.cuda.get_device_properties(index)
    return Machine(
        capability=(properties.major, properties.minor),
        gpu_name=properties.name,
        num_gpus=torch.cuda.device_count(),
        has_mps=has_mps,
    )


def _cuda_fault() -> str:
    """torch's own reason not to use an NVIDIA GPU of this machine; empty where there is none, or it is hidden."""
    if torch.version.cuda is None or not _has_nvidia_gpu():
        return ""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error)
        return "" if "No CUDA GPUs are available" in reason else reason  # hidden, by CUDA_VISIBLE_DEVICES
    return "torch.cuda.is_available() is False"


def _has_nvidia_gpu() -> bool:
    """Whether the driver shows a GPU: its device file on Linux, its tool on Windows."""
    if sys.platform == "win32":
        return shutil.which("nvidia-smi") is not None
    wsl = Path("/dev/dxg").exists() and Path("/usr/lib/wsl/lib/libcuda.so.1").exists()
    return wsl or any(path.name[6:].isdigit() for path in Path("/dev").glob("nvidia[0-9]*"))


def detect(
    device: str = "auto", precision: str = "auto", machine: Machine | None = None, *, may_fall_back: bool = False
) -> Hardware:
    """Choose device, precision and batch size (docs/architecture.md#training-defaults).

    The precision follows the compute capability, not `torch.cuda.is_bf16_supported()`, which is True on a T4, where
    bf16 is emulated.

    Args:
        device: auto, cpu, mps, cuda, cuda:N or N; cpu:0 and mps:0 are cpu and mps, as torch names them.
        precision: auto, fp32, fp16 or bf16.
        machine: the machine to decide for; by default this one.
        may_fall_back: with auto, where torch cannot use the NVIDIA GPU that is there, warn and go on with the CPU;
            else raise.

    Raises:
        SatlisaError: a device that does not exist here, or a precision that it does not support.
    """
    kind, _, index = (f"cuda:{device}" if device.isdigit() else device).partition(":")
    if kind in ("cpu", "mps") and index == "0":
        index = ""
    if kind not in ("auto", "cpu", "mps", "cuda") or (index and not (kind == "cuda" and index.isdigit())):
        raise SatlisaError(f"device: expected auto, cpu, mps, cuda or cuda:N, found '{device}'")
    machine = probe(int(index or 0)) if machine is None else machine
    if machine.cuda_fault and kind in ("auto", "cuda"):
        fault = (
            f"torch {torch.__version__} cannot use this machine's NVIDIA GPU ({machine.cuda_fault}); update the "
            "driver, or install torch for an older CUDA (setup.sh names the command)"
        )
        if kind == "cuda" or not may_fall_back:
            raise SatlisaError(f"device: {fault}, or choose the CPU with DEVICE=cpu or --device cpu")
        logger.warning("device: %s. The CPU is used", fault)
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
    if precision == "fp16" and kind == "mps":
        raise SatlisaError("precision: fp16 needs CUDA or a CPU, where its loss is scaled, found mps; use fp32 or bf16")
    return DTYPES[precision]


def dtype_name(dtype: torch.dtype) -> str:
    """The short name of a dtype: bfloat16."""
    return str(dtype).removeprefix("torch.")
