"""Sharded models (FSDP 2, chosen in the `accelerate` config): full tensors from shards, and shards from full tensors.

Without FSDP every function returns what it was given. Unsharding is collective: all processes call these functions, in
the same order.
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
    """Refuse, before anything is loaded, ways to shard a model that are not supported.

    Raises:
        SatlisaError: DeepSpeed, Megatron-LM, FSDP 1, weights that only one process would load, or fp16.
    """
    kind = accelerator.distributed_type
    if kind in (DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise SatlisaError(f"accelerate: {kind.value} is not supported; choose FSDP 2, or multi-GPU without sharding")
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
        raise SatlisaError("PRECISION: fp16 gradients of shards cannot be scaled; set bf16 or fp32, or drop FSDP")


def unsharded(tensor: Tensor) -> Tensor:
    """The full tensor of a shard; other tensors as they are."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(tensor: Tensor, other: Tensor) -> Tensor:
    """Shard a full tensor, which every process has, over processes and devices as `other` of the same shape is."""
    if not isinstance(other, DTensor):
        return tensor
    return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements, src_data_rank=None)


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """The trained parameters by name, unsharded, on the CPU."""
    named = [(name, parameter.detach()) for name, parameter in model.named_parameters() if parameter.requires_grad]
    return {name: unsharded(tensor).cpu().contiguous() for name, tensor in named}


@contextmanager
def unsharded_parameters(model: nn.Module, accelerator: Accelerator) -> Iterator[None]:
    """Keep full parameters in every process for the block, so that processes may run the model unequally often."""
    shards = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for shard in shards:
        shard.set_reshard_after_forward(False, recurse=False)
        shard.unshard()
    try:
        yield
    finally:
        for shard in shards:
            shard.reshard()
            reshards = accelerator.state.fsdp_plugin.reshard_after_forward and shard is not model  # as before
            shard.set_reshard_after_forward(reshards, recurse=False)
