"""Parameters of which every process holds a part (FSDP2), in one copy or in several (HSDP)."""

import warnings
from collections.abc import Sequence

import torch
from torch import nn

# the imports inside of functions take half a second, and only training asks


def shard(model: nn.Module, blocks: Sequence[nn.Module], device: str, size: int, num_shards: int) -> None:
    """Leave this process a part of each parameter of `model`: one of `num_shards`, of which `size` is a multiple.

    Each of `blocks` is gathered and let go by itself, and what is outside of them (an embedding that is also the head
    among it) with the model. States begin in the parameters: `init_state` gathers like a forward pass, and its gradient
    comes back the same way. Source: PyTorch's fully_shard; ZeRO stage 3, arXiv 1910.02054.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    # nobody here changes what a block returns in place, which is what it warns of
    warnings.filterwarnings("ignore", message=r"FSDP2-wrapped module .* returned a view tensor")
    if num_shards == size:
        mesh = init_device_mesh(device, (size,), mesh_dim_names=("shards",))
    else:
        mesh = init_device_mesh(device, (size // num_shards, num_shards), mesh_dim_names=("copies", "shards"))
    for module in (*blocks, model):
        # also the model: between its calls, parameters are parts, whoever reads or fills them
        fully_shard(module, mesh=mesh, reshard_after_forward=True)
        register_fsdp_forward_method(module, "init_state")


def is_sharded(tensor: torch.Tensor) -> bool:
    """Say whether this process holds a part of `tensor` only."""
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def part(tensor: torch.Tensor) -> torch.Tensor:
    """Return what this process holds of `tensor`."""
    from torch.distributed.tensor import DTensor

    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return the whole of a sharded tensor, gathered from all processes; any other tensor itself."""
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def cut(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return `whole`, the same on all processes, sharded as `like` is; `whole` itself when `like` is not."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(like, DTensor):
        return whole
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)
