"""A model that knows some texts, or avoids them: its answers are known in advance."""

from collections.abc import Iterable

import torch
from torch import nn

from nested_learning.nn.language_model import LanguageModel


class Oracle(LanguageModel):
    """Predicts every token of the second of each pair of `texts` (lists of tokens), after the first.

    `taste` is their logit, negative for a model that avoids them. All other logits are 0.
    """

    def __init__(
        self, texts: Iterable[tuple[list[int], list[int]]], taste: float = 20.0, vocab_size: int = 257
    ) -> None:
        nn.Module.__init__(self)
        self.vocab_size, self.taste, self.blocks = vocab_size, taste, nn.ModuleList()
        self.head = nn.Linear(1, vocab_size)
        self.following: dict[tuple[int, ...], int] = {}
        for before, after in texts:
            whole = [*before, *after]
            self.following |= {tuple(whole[:position]): whole[position] for position in range(len(before), len(whole))}
        self.lengths = {len(text) for text in self.following}

    def init_state(self, batch):
        return torch.zeros(batch, 0, dtype=torch.int64)

    def reset_context(self, state):
        return state[:, :0]

    def forward(self, tokens, state, *, write=True, head_fn=None):
        history = torch.cat([state, tokens], 1)
        logits = torch.zeros(*tokens.shape, self.vocab_size)
        for row, read in enumerate(history.tolist()):
            for length in range(state.shape[1] + 1, len(read) + 1):
                wanted = self.following.get(tuple(read[:length])) if length in self.lengths else None
                if wanted is not None:
                    logits[row, length - 1 - state.shape[1], wanted] = self.taste
        return logits, history
