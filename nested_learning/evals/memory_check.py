"""Is there room for a context? Said before anything is read."""

from pathlib import Path

import torch

from nested_learning import tree
from nested_learning.errors import ConfigError
from nested_learning.inference.session import SEGMENT
from nested_learning.nn.language_model import LanguageModel
from nested_learning.nn.memory import State

# a cache that grows is copied once, while the new tokens are joined to it
COPIES = 2
# share of the memory that is left for it
SHARE = 0.9


def require_room(model: LanguageModel, num_tokens: int, batch: int, option: str) -> None:
    """Raise ConfigError where `batch` rows of `num_tokens` tokens need more memory than there is.

    What grows with the context is counted: of the state, which is measured on a few tokens, and the scores of attention
    over all of it for a piece of SEGMENT tokens. A model whose state has one size has room for any length. `option`:
    which option says how long the context is.
    """
    growth = bytes_per_token(model)
    if not growth:
        return
    scores = SEGMENT * 4
    needed = batch * num_tokens * (COPIES * growth + scores)
    free = free_bytes(next(model.parameters()).device)
    if free is not None and needed > SHARE * free:
        most = int(SHARE * free / (COPIES * growth + scores) / batch)
        raise ConfigError(
            f"{option}={num_tokens}: this model keeps {growth} bytes of every token, {batch} contexts need about "
            f"{needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; use at most {most} tokens, a smaller batch_size, "
            "or a model with a window or a recurrent memory"
        )


def bytes_per_token(model: LanguageModel) -> int:
    """Return by how many bytes the state of a row grows with each token."""
    with torch.inference_mode():
        tokens = torch.zeros(1, 4, dtype=torch.int64, device=next(model.parameters()).device)
        first: State = model(tokens, model.init_state(1))[1]
        second: State = model(tokens, first)[1]
    return (tree.nbytes(second) - tree.nbytes(first)) // tokens.shape[1]


def free_bytes(device: torch.device) -> int | None:
    """Return the memory that is free on `device`; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    info = Path("/proc/meminfo")
    if device.type != "cpu" or not info.exists():
        return None
    lines = dict(line.split(":") for line in info.read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    return min([free, *_free_in_group()])


def _free_in_group() -> list[int]:
    """Return what the limit of the process's control group leaves, where it has one."""
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if not limit.exists() or not used.exists() or limit.read_text().strip() == "max":
        return []
    return [int(limit.read_text()) - int(used.read_text())]
