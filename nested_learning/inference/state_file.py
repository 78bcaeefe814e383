"""Session states as files: the tensors and integers of a state, and a fingerprint of its model."""

import json
import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from nested_learning import tree
from nested_learning.errors import CheckpointError, ConfigError
from nested_learning.files import sync

# fields of states that older files have under another name
RENAMED = {".place": ".position", ".asking": ".query_window", ".found": ".start_weights"}
# numbers of each parameter in the fingerprint: any two trained models differ in these
NUM_HASHED = 64


def save_state(path: Path, state: Any, model: nn.Module, rows: int) -> None:
    """Write `state`, which has `rows` rows and belongs to `model`, to the safetensors file `path`, whole or not at all.

    Integers, such as positions, and the model's fingerprint are in the header. Raises ConfigError where the file cannot
    be written.
    """
    if path.is_dir():
        raise ConfigError(f"{path}: a folder; give the name of a file in it, such as {path / 'session.safetensors'}")
    # tensors of a state may share memory; safetensors refuses those that do
    tensors = {name: leaf.detach().cpu().contiguous().clone() for name, leaf in tree.named_leaves(state).items()}
    header = {"rows": rows, "model": model_fingerprint(model), "integers": tree.named_integers(state)}
    # not the name of the file, which may already be as long as a name can be
    draft = path.with_name(f".session.{os.getpid()}.tmp")
    try:
        save_file(tensors, draft, {"state": json.dumps(header)})
        sync(draft)
        draft.replace(path)
        sync(path.parent)
    except (OSError, SafetensorError) as error:
        # there is no draft where its folder does not exist or is a file
        with suppress(OSError):
            draft.unlink()
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise ConfigError(f"{path}: cannot be written ({reason}); give another file") from error


def num_rows(path: Path, model: nn.Module) -> int:
    """Return the number of rows of the state in `path`; raise CheckpointError for a state of another model."""
    header = _read_state(path)[0]
    if header["model"] != model_fingerprint(model):
        raise CheckpointError(
            f"{path}: this state belongs to another model; open the checkpoint that it was saved with"
        )
    return int(header["rows"])


def load_state(path: Path, template: Any, device: Any) -> Any:
    """Return the state in `path`, on `device`; raise CheckpointError where its structure is not that of `template`."""
    header, tensors = _read_state(path)
    named, integers = tree.named_leaves(template), tree.named_integers(template)
    # rows and dimensions, not whole shapes: caches grow with the text
    expected = {name: (leaf.dim(), len(leaf)) for name, leaf in named.items()}
    found = {name: (tensor.dim(), *tensor.shape[:1]) for name, tensor in tensors.items()}
    if expected != found or integers.keys() != header["integers"].keys():
        raise CheckpointError(
            f"{path}: this state has another structure, because another version saved it or a session with other "
            "levels in its policy; open the session with the policy that it was saved with, or read the text again"
        )
    on_device = {name: tensor.to(device) for name, tensor in tensors.items()}
    return tree.rebuild(template, on_device | header["integers"])


def model_fingerprint(model: nn.Module) -> str:
    """Return a hash of the first numbers of every parameter; it is the same on every device."""
    digest = sha256()
    for name, parameter in model.named_parameters():
        first = parameter.detach().flatten()[:NUM_HASHED].cpu().double()
        digest.update(f"{name} {tuple(parameter.shape)}".encode() + first.numpy().tobytes())
    return digest.hexdigest()


def _read_state(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no dict
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: unreadable ({type(error).__name__}); save the session again") from error
    if "state" not in metadata:
        raise CheckpointError(f"{path}: not a session state; give a file that Session.save wrote")
    try:
        header = json.loads(metadata["state"])
    except ValueError:
        header = None
    match header:
        case {"rows": int(), "model": str(), "integers": dict() as integers}:
            header["integers"] = {_current_name(name): value for name, value in integers.items()}
        case _:
            raise CheckpointError(f"{path}: its header is damaged; save the session again")
    return header, {_current_name(name): tensor for name, tensor in tensors.items()}


def _current_name(name: str) -> str:
    for old, new in RENAMED.items():
        name = name.replace(old, new)
    return name
