"""What synthetic tasks share: each row is drawn from a generator keyed by (seed, split, epoch, index)."""

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

# tasks are endless and every epoch has new rows, so this only sets the unit of counting
EPOCH_ROWS = 1 << 16

MakeRow = Callable[[np.random.Generator], tuple[NDArray[np.int64], NDArray[np.int64]]]


@dataclass(kw_only=True)
class SyntheticConfig(DataConfig):
    """The base of all synthetic tasks. A task defines its vocabulary, the length of a row, and how a row is drawn."""

    batch_size: int = 32
    val_rows: int = 256

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """The number of tokens; token ids and targets are below it."""

    @property
    @abstractmethod
    def seq_len(self) -> int:
        """The length of every row, which follows from the options of the task."""

    @abstractmethod
    def make_row(self, rng: np.random.Generator, split: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw the tokens and the targets of one row, both [seq_len]. Most tasks ignore `split`."""

    def build(self, seed: int, tokenizer: Tokenizer | None = None) -> "SyntheticSource":
        """Make the source. Raises ConfigError when given a tokenizer: the model was trained on text."""
        if tokenizer is not None:
            raise ConfigError(
                f"data={self.name}: the tokens of this task are not text, and the model was trained on text (tokenizer "
                f"{tokenizer.name}); use data=stdlib or data=text, or a checkpoint trained with data={self.name}"
            )
        return SyntheticSource(self, seed)


class SyntheticSource:
    """A Source of a synthetic task. Rows are pure functions of (seed, split, epoch, index), new ones in every epoch."""

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
        """Return row `index` of `epoch`. Equal arguments return equal rows. A row is one document."""
        assert 0 <= index < self.num_rows(split), f"row {index} of {self.num_rows(split)}"
        rng = np.random.default_rng(derive_seed(self._seed, self._config.name, split, epoch, index))
        tokens, targets = self._config.make_row(rng, split)
        return Row(tokens, targets, np.zeros_like(tokens))
