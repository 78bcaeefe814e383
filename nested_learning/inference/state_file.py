"""Session states as files: the tensors and integers of a state, and a fingerprint of its model."""

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from nested_learning import tree
from nested_learning.errors import CheckpointError
from nested_learning.files import sync

# fields of states that older files have under another name
RENAMED = {".place": ".position", ".asking": ".query_window", ".found": ".start_weights"}
# numbers of each parameter in the fingerprint: any two trained models differ in these
NUM_HASHED = 64


def save_state(path: Path, state: Any, model: nn.Module, rows: int) -> None:
    """Write `state`, which has `rows` rows and belongs to `model`, to the safetensors file `path`, whole or not at all.

    Integers, such as positions, and the model's fingerprint are in the header.
    """
    # tensors of a state may share memory; safetensors refuses those that do
    tensors = {name: leaf.detach().cpu().contiguous().clone() for name, leaf in tree.named_leaves(state).items()}
    header = {"rows": rows, "model": model_fingerprint(model), "integers": tree.named_integers(state)}
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    save_file(tensors, draft, {"state": json.dumps(header)})
    sync(draft)
    draft.replace(path)
    sync(path.parent)


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
    if named.keys() != tensors.keys() or integers.keys() != header["integers"].keys():
        raise CheckpointError(
            f"{path}: this state has another structure, because another version saved it; read the text again"
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
    header = json.loads(metadata["state"])
    header["integers"] = {_current_name(name): value for name, value in header["integers"].items()}
    return header, {_current_name(name): tensor for name, tensor in tensors.items()}


def _current_name(name: str) -> str:
    for old, new in RENAMED.items():
        name = name.replace(old, new)
    return name
