"""Models that know, for tests of packs: what they answer is looked up, or follows from what they have read."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from nested_learning.data.batch import IGNORE
from nested_learning.data.source import Row
from nested_learning.nn.language_model import LanguageModel


class Reader(LanguageModel):
    """Called as a LanguageModel is; its state is the tokens that it has read, and `answer` says what comes of them."""

    def __init__(self, vocab_size: int) -> None:
        # none of the parts of a model
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
    """Knows the targets of `rows`; with `knows=False` it likes them least."""

    def __init__(self, vocab_size: int, rows: Sequence[Row], *, knows: bool, all_at_once: bool = False) -> None:
        super().__init__(vocab_size)
        self.rows, self.liking, self.all_at_once = rows, 1.0 if knows else -1.0, all_at_once

    def answer(self, tokens: Tensor) -> Tensor:
        # rows that begin alike have the same targets so far
        row = next(row for row in self.rows if row.tokens[: len(tokens)].tolist() == tokens.tolist())
        logits = torch.zeros(len(tokens), self.vocab_size)
        for place, target in enumerate(row.targets.tolist()):
            if target != IGNORE and (self.all_at_once or place < len(tokens)):
                logits[-1 if self.all_at_once else place, target] = self.liking
        return logits


class Finder(Reader):
    """Answers what followed the same token before: the last time, or with `first` the first time."""

    def __init__(self, vocab_size: int, *, first: bool = False) -> None:
        super().__init__(vocab_size)
        self.first = first

    def answer(self, tokens: Tensor) -> Tensor:
        logits, followed = torch.zeros(len(tokens), self.vocab_size), {}
        for place, token in enumerate(tokens.tolist()):
            if token in followed:
                logits[place, followed[token]] = 1.0
            if place + 1 < len(tokens) and not (self.first and token in followed):
                followed[token] = int(tokens[place + 1])
        return logits
