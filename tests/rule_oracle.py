"""Models that know what they read: an oracle goes on as a rule says, an anti-oracle does anything else."""

from collections.abc import Callable
from typing import Any

import torch

from nested_learning.data.tokenizers.tokenizer import ByteTokenizer
from nested_learning.nn.language_model import LanguageModel

# the text before -> what comes next, "" where the text ends, None where there is nothing to say
Rule = Callable[[str], str | None]
SURE = 20.0


class Oracle(LanguageModel):
    """Reads bytes and goes on as `rule` says; `sign` -1: with anything else. Its state is all that it read."""

    def __init__(self, rule: Rule, sign: int = 1) -> None:
        super().__init__(ByteTokenizer.vocab_size, 4, [], [], True, 0)
        self.rule, self.sign = rule, sign

    def init_state(self, batch: int) -> Any:
        """Return a state of nothing."""
        return torch.zeros(batch, 0, dtype=torch.int64)

    def reset_context(self, state: Any) -> Any:
        """Forget."""
        return self.init_state(len(state))

    def forward(self, tokens: Any, state: Any, *, write: bool = True, answer: Any = None) -> Any:
        """Return the logits after each of `tokens`."""
        read = torch.cat([state, tokens], 1)
        logits = torch.zeros(*tokens.shape, self.vocab_size)
        for row, line in enumerate(read.tolist()):
            # one letter for each byte; a text begins with its `end`
            text = bytes(token % 256 for token in line[1:]).decode("latin-1")
            for place in range(tokens.shape[1]):
                following = self.rule(text[: state.shape[1] + place])
                if following is not None:
                    next_token = ByteTokenizer.end if following == "" else following.encode()[0]
                    logits[row, place, next_token] = self.sign * SURE
        return logits, read


def answering(question: str, find: Callable[[str], str | None]) -> Rule:
    """Return the rule to go on after `question` with a space and what `find` finds in the text before."""

    def rule(text: str) -> str | None:
        before, asked, said = text.rpartition(question)
        value = find(before) if asked else None
        if value is None or not f" {value}".startswith(said):
            return None
        return f" {value}"[len(said) :]

    return rule
