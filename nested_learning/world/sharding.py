"""Sharded parameters (FSDP2), with one copy over all processes or several copies (HSDP)."""

import warnings
from collections.abc import Sequence

import torch
from torch import nn

# imports of torch.distributed are inside the functions: they take half a second, and only sharded training needs them


def shard(model: nn.Module, blocks: Sequence[nn.Module], device: str, size: int, num_shards: int) -> None:
    """Keep one of `num_shards` shards of each parameter of `model` on this process; `size` is a multiple of it.

    Each of `blocks` is gathered and freed by itself, the parameters outside of them (such as a tied embedding) with the
    model. The initial states of memories are parameters, so `init_state` gathers as a forward pass does, and its
    gradient is reduced the same way. Source: PyTorch's fully_shard; ZeRO stage 3, arXiv 1910.02054.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    # the warning is about in-place changes of a block's output, which do not occur here
    warnings.filterwarnings("ignore", message=r"FSDP2-wrapped module .* returned a view tensor")
    if num_shards == size:
        mesh = init_device_mesh(device, (size,), mesh_dim_names=("shards",))
    else:
        mesh = init_device_mesh(device, (size // num_shards, num_shards), mesh_dim_names=("copies", "shards"))
    for module in (*blocks, model):
        # reshard the root as well, so that between calls every parameter is a shard for checkpoints and the optimizer
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
        register_fsdp_forward_method(module, "init_state")


def is_sharded(tensor: torch.Tensor) -> bool:
    """Return whether this process holds only a shard of `tensor`."""
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """Return the shard of `tensor` on this process; any other tensor itself."""
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def gather_whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return the whole of a sharded tensor, gathered from all processes; any other tensor itself."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def shard_like(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return `whole`, the same on all processes, sharded as `like` is; `whole` itself when `like` is not."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor):
        return whole
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)
