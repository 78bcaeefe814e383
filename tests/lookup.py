"""Models for tests of packs whose answers are looked up, or follow from what they have read."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nested_learning.data.batch import IGNORE
from nested_learning.data.source import Row
from nested_learning.nn.language_model import LanguageModel


class Reader(LanguageModel):
    """Called like a LanguageModel; its state is the tokens that it has read, and `answer` makes logits of them."""

    def __init__(self, vocab_size: int) -> None:
        # without the layers of a LanguageModel
        nn.Module.__init__(self)
        self.vocab_size = vocab_size
        self.head = nn.Linear(1, vocab_size, bias=False)

    def init_state(self, batch: int) -> Tensor:
        return torch.empty(batch, 0, dtype=torch.int64)

    def reset_context(self, state: Tensor) -> Tensor:
        return state[:, :0]

    def forward(self, tokens: Tensor, state: Tensor, *, write: bool = True) -> tuple[Tensor, Tensor]:
        seen = torch.cat([state, tokens], 1)
        logits = torch.stack([self.answer(row) for row in seen])
        return logits[:, state.shape[1] :], seen

    def answer(self, tokens: Tensor) -> Tensor:
        """Return the logits [t v] after each of `tokens`."""
        raise NotImplementedError


class Lookup(Reader):
    """Predicts the targets of `rows`; with `knows=False` they are its least likely tokens."""

    def __init__(self, vocab_size: int, rows: Sequence[Row], *, knows: bool, all_at_once: bool = False) -> None:
        super().__init__(vocab_size)
        self.rows, self.logit, self.all_at_once = rows, 1.0 if knows else -1.0, all_at_once

    def answer(self, tokens: Tensor) -> Tensor:
        # rows with a common prefix have the same targets along it
        row = next(row for row in self.rows if row.tokens[: len(tokens)].tolist() == tokens.tolist())
        logits = torch.zeros(len(tokens), self.vocab_size)
        for position, target in enumerate(row.targets.tolist()):
            if target != IGNORE and (self.all_at_once or position < len(tokens)):
                logits[-1 if self.all_at_once else position, target] = self.logit
        return logits


class Finder(Reader):
    """Predicts the token that followed the same token before: the last time, or with `first` the first time."""

    def __init__(self, vocab_size: int, *, first: bool = False) -> None:
        super().__init__(vocab_size)
        self.first = first

    def answer(self, tokens: Tensor) -> Tensor:
        logits, followed = torch.zeros(len(tokens), self.vocab_size), {}
        for position, token in enumerate(tokens.tolist()):
            if token in followed:
                logits[position, followed[token]] = 1.0
            if position + 1 < len(tokens) and not (self.first and token in followed):
                followed[token] = int(tokens[position + 1])
        return logits
