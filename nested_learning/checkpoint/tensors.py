"""The tensors of a checkpoint: which of a model are kept, and how they come back."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nested_learning.checkpoint.layout import CONFIG, MODEL, OPTIMIZER, way_out
from nested_learning.errors import CheckpointError
from nested_learning.optim.optimizer import Optimizer


def load_model(directory: Path, model: nn.Module) -> None:
    """Fill `model`, in place. Raises CheckpointError naming what is missing, too much, or of another shape."""
    fill_model(directory / MODEL, _load_tensors(directory / MODEL), model, directory / CONFIG)


def fill_model(path: Path, saved: Mapping[str, Tensor], model: nn.Module, options: Path) -> None:
    """Copy what was `saved` in `path` into `model`, or raise CheckpointError that names the file of its `options`."""
    wanted = model_tensors(model)
    problems = [f"{name} is missing" for name in wanted.keys() - saved.keys()]
    problems += [f"{name} is unknown to the model" for name in saved.keys() - wanted.keys()]
    for name in wanted.keys() & saved.keys():
        if saved[name].shape != wanted[name].shape or saved[name].dtype != wanted[name].dtype:
            problems.append(f"{name} is {_kind(saved[name])}, the model's is {_kind(wanted[name])}")
    if problems:
        raise CheckpointError(
            f"{path}: made for another model: {'; '.join(sorted(problems)[:3])} ({len(problems)} in all); "
            f"use the model options of {options}"
        )
    for name, tensor in wanted.items():
        tensor.data.copy_(saved[name])


def load_optimizer(directory: Path, optimizer: Optimizer) -> None:
    """Give `optimizer` its state back; it checks the names itself. Raises CheckpointError when the file is damaged."""
    optimizer.load_state_dict(_load_tensors(directory / OPTIMIZER))


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Name every parameter (shared ones once) and every buffer that is meant to be kept."""
    kept = model.state_dict(keep_vars=True)
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    return {name: tensor for name, tensor in tensors.items() if name in kept}


def plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `tensors` as safetensors takes them."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: unreadable ({error}); {way_out(path.parent)}") from error


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
