"""A model whose parameters lie in pieces on several processes (FSDP, chosen in the `accelerate` config), made whole.

Without FSDP every function here hands back what it was given: nobody else needs to know how a model is laid out.
Gathering is work of all processes together, so all of them call these functions, in the same order.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from satlisa.errors import SatlisaError


def check_sharding(accelerator: Accelerator, compute_dtype: torch.dtype) -> None:
    """Refuse, before anything is loaded, the ways to shard a model that this training does not know.

    Raises:
        SatlisaError: DeepSpeed, Megatron-LM, FSDP 1, weights that only one process would load, or fp16.
    """
    kind = accelerator.distributed_type
    if kind in (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise SatlisaError(f"accelerate: {kind.value} is not known here; choose FSDP 2, or multi-GPU without sharding")
    if kind != DistributedType.FSDP:
        return
    plugin = accelerator.state.fsdp_plugin
    if plugin.fsdp_version != 2:
        raise SatlisaError(f"accelerate: expected fsdp_version 2, found {plugin.fsdp_version}; set it in the config")
    if plugin.cpu_ram_efficient_loading:
        raise SatlisaError(
            "accelerate: fsdp_cpu_ram_efficient_loading would leave other processes without weights; switch it off"
        )
    if compute_dtype == torch.float16:
        raise SatlisaError("PRECISION: fp16 cannot be scaled over FSDP's pieces; set bf16 or fp32, or do without FSDP")


def whole(tensor: Tensor) -> Tensor:
    """A tensor in one piece."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def laid_out_like(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor, which every process has, laid out over processes and devices as another of its shape is."""
    if not isinstance(other, DTensor):
        return tensor
    return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements, src_data_rank=None)


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """What is trained, by the names of its parameters, whole and on the CPU."""
    named = [(name, parameter.detach()) for name, parameter in model.named_parameters() if parameter.requires_grad]
    return {name: whole(tensor).cpu().contiguous() for name, tensor in named}


@contextmanager
def gathered(model: nn.Module, accelerator: Accelerator) -> Iterator[None]:
    """Whole parameters in each process meanwhile, so that one may run the model more often than another."""
    shards = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for shard in shards:
        shard.set_reshard_after_forward(False, recurse=False)
        shard.unshard()
    try:
        yield
    finally:
        for shard in shards:
            shard.reshard()
            frees = accelerator.state.fsdp_plugin.reshard_after_forward and shard is not model  # as it was
            shard.set_reshard_after_forward(frees, recurse=False)
