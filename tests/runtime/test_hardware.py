"""Device, precision and batch size for machines that are not here."""

import re
import warnings

import pytest
import torch

from satlisa.errors import SatlisaError
from satlisa.runtime import hardware
from satlisa.runtime.hardware import Machine, detect, probe

T4 = Machine((7, 5), "Tesla T4", 1)
V100 = Machine((7, 0), "Tesla V100", 1)
A100 = Machine((8, 0), "NVIDIA A100", 1)
A10G = Machine((8, 6), "NVIDIA A10G", 1)
H100 = Machine((9, 0), "NVIDIA H100", 8)
B200 = Machine((10, 0), "NVIDIA B200", 8)
MAC = Machine(has_mps=True)
CPU = Machine()


@pytest.mark.parametrize(
    ("machine", "device", "dtype", "batch_size", "name"),
    [
        (T4, "cuda", torch.float16, 1, "Tesla T4"),
        (V100, "cuda", torch.float16, 1, "Tesla V100"),
        (A100, "cuda", torch.bfloat16, 2, "NVIDIA A100"),
        (A10G, "cuda", torch.bfloat16, 2, "NVIDIA A10G"),
        (H100, "cuda", torch.bfloat16, 2, "NVIDIA H100"),
        (B200, "cuda", torch.bfloat16, 2, "NVIDIA B200"),
        (MAC, "mps", torch.float32, 1, "Apple GPU"),
        (CPU, "cpu", torch.float32, 1, "CPU"),
    ],
    ids=lambda value: value.gpu_name or "no GPU" if isinstance(value, Machine) else None,
)
def test_table_of_the_contract(machine: Machine, device: str, dtype: torch.dtype, batch_size: int, name: str) -> None:
    found = detect(machine=machine)
    assert (found.device, found.dtype, found.batch_size, found.name) == (torch.device(device), dtype, batch_size, name)


def test_cuda_goes_before_mps() -> None:
    assert detect(machine=Machine((8, 6), "NVIDIA A10G", 1, has_mps=True)).device.type == "cuda"


@pytest.mark.parametrize("machine", [T4, H100, MAC, CPU])
def test_cpu_can_always_be_asked_for(machine: Machine) -> None:
    found = detect("cpu", machine=machine)
    assert (found.device, found.dtype, found.batch_size, found.name) == (torch.device("cpu"), torch.float32, 1, "CPU")


def test_index_is_kept() -> None:
    assert detect("cuda:1", machine=H100).device == torch.device("cuda", 1)


@pytest.mark.parametrize(
    ("asked", "machine", "device"),
    [("0", T4, "cuda:0"), ("3", H100, "cuda:3"), ("cpu:0", H100, "cpu"), ("mps:0", MAC, "mps")],
)
def test_devices_as_torch_names_them(asked: str, machine: Machine, device: str) -> None:
    assert detect(asked, machine=machine).device == torch.device(device)


@pytest.mark.parametrize(
    ("machine", "precision", "dtype"),
    [
        (T4, "fp32", torch.float32),
        (T4, "bf16", torch.bfloat16),
        (H100, "fp16", torch.float16),
        (H100, "fp32", torch.float32),
        (CPU, "bf16", torch.bfloat16),
        (CPU, "fp16", torch.float16),  # slow, for tests of the float16 path
        (CPU, "fp32", torch.float32),
        (MAC, "bf16", torch.bfloat16),
    ],
)
def test_precision_can_be_asked_for(machine: Machine, precision: str, dtype: torch.dtype) -> None:
    assert detect(precision=precision, machine=machine).dtype == dtype


def test_fp16_is_not_for_mps() -> None:
    with pytest.raises(SatlisaError, match=r"^precision: fp16 needs CUDA or a CPU.*found mps; use fp32 or bf16$"):
        detect(precision="fp16", machine=MAC)


@pytest.mark.parametrize(
    ("device", "machine", "message"),
    [
        ("cuda", CPU, "device: 'cuda' requested, but 0 CUDA devices found; use cpu"),
        ("cuda", MAC, "device: 'cuda' requested, but 0 CUDA devices found; use cpu"),
        ("mps", T4, "device: 'mps' requested, but this machine has none; use cpu"),
        ("cuda:5", Machine(num_gpus=2), "device: 'cuda:5' requested, but 2 CUDA devices found; use cpu"),
        ("tpu", T4, "device: expected auto, cpu, mps, cuda or cuda:N, found 'tpu'"),
        ("cuda:one", T4, "device: expected auto, cpu, mps, cuda or cuda:N, found 'cuda:one'"),
        ("cpu:1", T4, "device: expected auto, cpu, mps, cuda or cuda:N, found 'cpu:1'"),
    ],
)
def test_device_that_is_not_there(device: str, machine: Machine, message: str) -> None:
    with pytest.raises(SatlisaError) as error:
        detect(device, machine=machine)
    assert str(error.value) == message


def test_unknown_precision() -> None:
    with pytest.raises(SatlisaError) as error:
        detect(precision="fp8", machine=H100)
    assert str(error.value) == "precision: expected auto, fp32, fp16, bf16, found 'fp8'"


class FakeProperties:
    def __init__(self, major: int, minor: int, name: str) -> None:
        self.major, self.minor, self.name = major, minor, name


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch as it is on a machine with a T4 and an H100, where bf16 is 'supported' by emulation."""
    cards = [FakeProperties(7, 5, "Tesla T4"), FakeProperties(9, 0, "NVIDIA H100")]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: cards[index])
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("two_gpus")
def test_probe_asks_for_the_chosen_device() -> None:
    assert probe(0) == Machine((7, 5), "Tesla T4", 2)
    assert probe(1) == Machine((9, 0), "NVIDIA H100", 2)
    assert detect().dtype == torch.float16
    assert detect("cuda:1").dtype == torch.bfloat16
    with pytest.raises(SatlisaError, match="'cuda:2' requested, but 2 CUDA devices found"):
        detect("cuda:2")


OLD_DRIVER = "The NVIDIA driver on your system is too old (found version 11040)"


@pytest.fixture
def old_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch built for CUDA beside a GPU whose driver is older."""

    def unavailable() -> bool:
        warnings.warn(f"CUDA initialization: {OLD_DRIVER}", stacklevel=2)
        return False

    def init() -> None:
        raise RuntimeError(f"{OLD_DRIVER}\nPlease update your GPU driver")

    monkeypatch.setattr(torch.cuda, "is_available", unavailable)
    monkeypatch.setattr(torch.cuda, "init", init)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(hardware, "_has_nvidia_gpu", lambda: True)


@pytest.mark.usefixtures("old_driver")
@pytest.mark.filterwarnings("error")
def test_a_driver_that_is_too_old_is_no_silent_cpu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    words = rf"^device: torch .* cannot use this machine's NVIDIA GPU \({re.escape(OLD_DRIVER)}\); .*DEVICE=cpu"
    for device in ("auto", "cuda"):
        with pytest.raises(SatlisaError, match=words):
            detect(device)
    assert detect("cpu").device.type == "cpu" and not caplog.records
    assert detect(may_fall_back=True).device.type == "cpu"
    (line,) = [record.getMessage() for record in caplog.records]
    assert OLD_DRIVER in line and line.endswith("The CPU is used")
    caplog.clear()

    def hidden() -> None:
        raise RuntimeError("No CUDA GPUs are available")  # as with CUDA_VISIBLE_DEVICES=""

    monkeypatch.setattr(torch.cuda, "init", hidden)
    assert detect().device.type == "cpu" and not caplog.records


@pytest.mark.usefixtures("old_driver")
def test_a_torch_for_the_cpu_or_a_machine_without_a_gpu_has_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_has_nvidia_gpu", lambda: False)
    assert probe().cuda_fault == ""
    monkeypatch.setattr(hardware, "_has_nvidia_gpu", lambda: True)
    monkeypatch.setattr(torch.version, "cuda", None)
    assert probe().cuda_fault == ""


def test_probe_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert probe() == Machine()
