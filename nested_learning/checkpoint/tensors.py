"""The tensors of a checkpoint: which ones of a model are saved, and loading them."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from nested_learning.checkpoint.layout import CONFIG, MODEL, OPTIMIZER, parts_of, way_out
from nested_learning.errors import CheckpointError
from nested_learning.optim.average import EMA
from nested_learning.optim.optimizer import Optimizer
from nested_learning.world.sharding import gather_whole, shard_like
from nested_learning.world.storage import describe_parts, read_parts


def load_model(directory: Path, model: nn.Module) -> None:
    """Fill `model`, in place.

    Raises CheckpointError naming tensors that are missing, unknown, of another shape, or not finite.
    """
    path, options = directory / MODEL, directory / CONFIG
    if not parts_of(path).is_dir():
        fill_model(path, _load_tensors(path), model, options)
        return
    check_model(path, _described(path), model, options)
    tensors = {name: tensor.data for name, tensor in model_tensors(model).items()}
    _fill_from_parts(path, tensors)
    _refuse_broken(path, tensors)


def fill_model(path: Path, saved: Mapping[str, Tensor], model: nn.Module, options: Path) -> None:
    """Copy what was `saved` in `path` into `model`, or raise CheckpointError that names the file of its `options`."""
    check_model(path, saved, model, options)
    _refuse_broken(path, saved)
    for name, tensor in model_tensors(model).items():
        whole = saved[name].to(tensor.device)
        # `shard_like` imports torch.distributed, which takes a second, so it is called for sharded tensors only
        tensor.data.copy_(whole if type(tensor.data) is Tensor else shard_like(whole, tensor.data))


def check_model(path: Path, saved: Mapping[str, Tensor], model: nn.Module, options: Path) -> None:
    """Raise CheckpointError, naming the file of its `options`, unless `saved` in `path` has the tensors of `model`."""
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


def load_averaged(directory: Path, model: nn.Module) -> None:
    """Replace the parameters of `model` by their moving averages (EMA); buffers stay.

    Raises CheckpointError when the run averages none (optim.ema=null).
    """
    path, wanted = directory / OPTIMIZER, {f"{name}/{EMA}": weights for name, weights in model.named_parameters()}
    found = _described(path) if parts_of(path).is_dir() else _load_tensors(path)
    if not wanted.keys() <= found.keys():
        raise CheckpointError(
            f"{directory}: has no averaged weights, it was made with optim.ema=null; use weights=model"
        )
    if parts_of(path).is_dir():
        _fill_from_parts(path, {key: weights.data for key, weights in wanted.items()})
    else:
        for key, weights in wanted.items():
            weights.data.copy_(found[key])
    _refuse_broken(path, wanted)


def load_optimizer(directory: Path, optimizer: Optimizer) -> None:
    """Load the state of `optimizer`, which checks the names. Raises CheckpointError when the file is damaged."""
    path = directory / OPTIMIZER
    if not parts_of(path).is_dir():
        optimizer.load_state_dict(_load_tensors(path))
        return
    optimizer.check(_described(path))
    local = optimizer.local_tensors()
    _fill_from_parts(path, local)
    optimizer.load_integers(local)


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return every parameter (shared ones once) and every persistent buffer by name."""
    kept = model.state_dict(keep_vars=True)
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    return {name: tensor for name, tensor in tensors.items() if name in kept}


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the names of the tensors that hold a number which is not finite; of sharded ones on all processes."""
    return [name for name, tensor in tensors.items() if not _is_finite(tensor)]


def plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `tensors` detached, contiguous and on the CPU, as safetensors requires."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _described(path: Path) -> dict[str, Tensor]:
    """Return the tensors that the shards at `path` form, as shapes and dtypes without numbers."""
    try:
        return describe_parts(parts_of(path))
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(f"{parts_of(path)}: unreadable ({error}); {way_out(path.parent)}") from error


def _fill_from_parts(path: Path, tensors: dict[str, Tensor]) -> None:
    try:
        read_parts(parts_of(path), tensors)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{parts_of(path)}: unreadable ({error}); {way_out(path.parent)}") from error


def _load_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: unreadable ({error}); {way_out(path.parent)}") from error


def _refuse_broken(path: Path, tensors: Mapping[str, Tensor]) -> None:
    if broken := not_finite(tensors):
        raise CheckpointError(
            f"{path}: not finite: {', '.join(sorted(broken)[:3])} ({len(broken)} in all), so training had diverged; "
            f"{way_out(path.parent)}"
        )


def _is_finite(tensor: Tensor) -> bool:
    # the sum is 0, or NaN; unlike a test of each number, it is defined for sharded tensors
    total = (tensor.detach() * 0).sum()
    return bool((total if type(total) is Tensor else gather_whole(total)) == 0)


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
