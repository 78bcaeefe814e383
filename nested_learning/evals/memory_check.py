"""Check before an evaluation whether a long context fits into memory."""

import torch

from nested_learning import tree
from nested_learning.errors import ConfigError
from nested_learning.inference.session import PREFILL_TOKENS
from nested_learning.nn.language_model import LanguageModel
from nested_learning.nn.memory import State
from nested_learning.planning.machine import free_bytes

# a growing KV cache exists twice while new tokens are concatenated to it
COPIES = 2
# fraction of the free memory that a context may use
FRACTION = 0.9


def require_memory(model: LanguageModel, num_tokens: int, batch: int, option: str) -> None:
    """Raise ConfigError where `batch` contexts of `num_tokens` tokens need more memory than is free.

    Counted is what grows with the context: the state, measured on a few tokens, and the attention scores of one prefill
    chunk over the whole context. A model with a state of constant size fits at any length. `option` is the name of the
    option that sets the length, for the message.
    """
    growth = bytes_per_token(model)
    if not growth:
        return
    scores = PREFILL_TOKENS * 4
    needed = batch * num_tokens * (COPIES * growth + scores)
    free = free_bytes(next(model.parameters()).device)
    if free is not None and needed > FRACTION * free:
        most = int(FRACTION * free / (COPIES * growth + scores) / batch)
        raise ConfigError(
            f"{option}={num_tokens}: this model keeps {growth} bytes per token, and {batch} contexts need about "
            f"{needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free; use at most {most} tokens, a smaller batch_size, "
            "or a model with a window or a recurrent memory"
        )


def bytes_per_token(model: LanguageModel) -> int:
    """Return the bytes by which the state of one row grows per token."""
    with torch.inference_mode():
        tokens = torch.zeros(1, 4, dtype=torch.int64, device=next(model.parameters()).device)
        first: State = model(tokens, model.init_state(1))[1]
        second: State = model(tokens, first)[1]
    return (tree.nbytes(second) - tree.nbytes(first)) // tokens.shape[1]
