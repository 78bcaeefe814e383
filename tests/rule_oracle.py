"""Models that continue a text by a rule; an anti-oracle predicts anything else."""

from collections.abc import Callable
from typing import Any

import torch

from nested_learning.data.tokenizers.tokenizer import ByteTokenizer
from nested_learning.nn.language_model import LanguageModel

# the text before -> what comes next, "" where the text ends, None where the rule predicts nothing
Rule = Callable[[str], str | None]
SURE = 20.0


class Oracle(LanguageModel):
    """Reads bytes and predicts what `rule` gives; with `sign` -1 anything else. Its state is all that it has read."""

    def __init__(self, rule: Rule, sign: int = 1) -> None:
        super().__init__(ByteTokenizer.vocab_size, 4, [], [], True, 0)
        self.rule, self.sign = rule, sign

    def init_state(self, batch: int) -> Any:
        """Return the state before the first token."""
        return torch.zeros(batch, 0, dtype=torch.int64)

    def reset_context(self, state: Any) -> Any:
        """Return the state before the first token."""
        return self.init_state(len(state))

    def forward(self, tokens: Any, state: Any, *, write: bool = True, head_fn: Any = None) -> Any:
        """Return the logits after each of `tokens`."""
        read = torch.cat([state, tokens], 1)
        logits = torch.zeros(*tokens.shape, self.vocab_size)
        for row, line in enumerate(read.tolist()):
            # one letter for each byte, without the `end` token at the start
            text = bytes(token % 256 for token in line[1:]).decode("latin-1")
            for position in range(tokens.shape[1]):
                following = self.rule(text[: state.shape[1] + position])
                if following is not None:
                    next_token = ByteTokenizer.end if following == "" else following.encode()[0]
                    logits[row, position, next_token] = self.sign * SURE
        return logits, read


def answering(question: str, find: Callable[[str], str | None]) -> Rule:
    """Return the rule that continues `question` with a space and the value that `find` reads from the text before."""

    def rule(text: str) -> str | None:
        before, match, answer = text.rpartition(question)
        value = find(before) if match else None
        if value is None or not f" {value}".startswith(answer):
            return None
        return f" {value}"[len(answer) :]

    return rule
