"""What the made-up tasks share: rows drawn afresh from a generator keyed by their place, tokens that are no text."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from nested_learning.data.source import DataConfig, Row
from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.errors import ConfigError
from nested_learning.seeds import derive_seed

# every epoch has rows of its own, so an epoch is only a unit of counting
EPOCH_ROWS = 1 << 16

MakeRow = Callable[[np.random.Generator], tuple[NDArray[np.int64], NDArray[np.int64]]]


@dataclass(kw_only=True)
class SyntheticConfig(DataConfig):
    """What the options for made-up tasks share: each says how large its vocabulary is and how it makes a row."""

    batch_size: int = 32
    val_rows: int = 256

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Tokens are below this number."""

    @property
    @abstractmethod
    def seq_len(self) -> int:
        """The length of every row; it follows from the task."""

    @abstractmethod
    def make_row(self, rng: np.random.Generator, split: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw the tokens and the targets, both [seq_len], of one row of `split`: of most tasks any row will do."""

    def build(self, seed: int, tokenizer: Tokenizer | None = None) -> "SyntheticSource":
        """Make the task. Raises ConfigError when given a tokenizer: a model that reads text has other tokens."""
        if tokenizer is not None:
            raise ConfigError(
                f"data={self.name}: the model was trained on text (tokenizer {tokenizer.name}), this task has its own "
                "tokens; use data=stdlib or data=text, or a checkpoint trained with this data"
            )
        return SyntheticSource(self, seed)


class SyntheticSource:
    """A Source whose rows are functions of (seed, split, epoch, index): endless, and never the same in two epochs."""

    def __init__(self, config: SyntheticConfig, seed: int) -> None:
        self._config, self._seed = config, seed
        self.vocab_size = config.vocab_size
        self.seq_len = config.seq_len
        self.tokenizer: Tokenizer | None = None
        task = {name: value for name, value in asdict(config).items() if name not in ("batch_size", "val_rows")}
        self.fingerprint = sha256(repr((task, seed)).encode()).hexdigest()

    def num_rows(self, split: str) -> int:
        """Count the rows of one epoch of `split`, "train" or "validation"."""
        return {"train": EPOCH_ROWS, "validation": self._config.val_rows}[split]

    def row(self, split: str, epoch: int, index: int) -> Row:
        """Return row `index` of an epoch: equal arguments give equal rows. A row is one document."""
        assert 0 <= index < self.num_rows(split), f"row {index} of {self.num_rows(split)}"
        rng = np.random.default_rng(derive_seed(self._seed, self._config.name, split, epoch, index))
        tokens, targets = self._config.make_row(rng, split)
        return Row(tokens, targets, np.zeros_like(tokens))
