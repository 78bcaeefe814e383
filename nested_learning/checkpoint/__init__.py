"""Checkpoints: directories of safetensors, JSON and YAML, written atomically and verified before they are used.

`<run>/checkpoints/step_00000100/` holds model.safetensors, optimizer.safetensors, config.yaml, progress.json, the
tokenizer, a model card, and hashes.json with the sha256 of all of them; `<run>/checkpoints/latest` names the newest.
"""

from nested_learning.checkpoint.layout import (
    CONFIG,
    FOLDER,
    Progress,
    find,
    has_checkpoint,
    read_config,
    read_json,
    read_progress,
    run_of,
    verify,
    write_config,
)
from nested_learning.checkpoint.saving import is_kept, save, tidy
from nested_learning.checkpoint.tensors import (
    fill_model,
    load_averaged,
    load_model,
    load_optimizer,
    model_tensors,
    not_finite,
    plain,
)

__all__ = [
    "CONFIG",
    "FOLDER",
    "Progress",
    "fill_model",
    "find",
    "has_checkpoint",
    "is_kept",
    "load_averaged",
    "load_model",
    "load_optimizer",
    "model_tensors",
    "not_finite",
    "plain",
    "read_config",
    "read_json",
    "read_progress",
    "run_of",
    "save",
    "tidy",
    "verify",
    "write_config",
]
