"""`data=mad`: the six tasks of Mechanistic Architecture Design (MAD), small tests of what an architecture can do."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nested_learning.data.source import require_at_least, require_one_of
from nested_learning.data.tasks.mad_tasks import TASKS, Sizes, keys_and_values
from nested_learning.data.tasks.synthetic import SyntheticConfig
from nested_learning.errors import ConfigError
from nested_learning.typed import Count, did_you_mean

# (vocabulary, length) of MAD's own configurations, configs/tasks/*.yml
BASELINES = {
    "in_context_recall": (16, 128),
    "fuzzy_recall": (16, 128),
    "noisy_recall": (32, 128),
    "selective_copying": (16, 256),
    "compression": (16, 32),
    "memorization": (256, 32),
}
# the tasks that read a key, where not all do
READERS = {
    "noise": ("noisy_recall",),
    "num_noise": ("noisy_recall",),
    "num_copied": ("selective_copying",),
    "max_motif": ("fuzzy_recall",),
    "map_seed": ("memorization",),
    "train_on": ("in_context_recall", "fuzzy_recall", "noisy_recall"),
}


@dataclass(kw_only=True)
class MadConfig(SyntheticConfig):
    """One of MAD's tasks (arXiv 2403.17844; Table 4 of Nested Learning), see `mad_tasks`; `Sizes` explains the options.

    `vocabulary`, `length`: null takes MAD's baseline for the task. Two differences from MAD: every row is new, where
    MAD has 12,800 training rows (256 in memorization); and the compression task decodes with the model's own untied
    head, with one output for each pair of position and token, where MAD has an MLP that is given the position.
    """

    name: str = "mad"
    task: str = "in_context_recall"
    vocabulary: int | None = None
    length: int | None = None
    noise: float = 0.2
    num_noise: Count = 16
    num_copied: int = 16
    max_motif: int = 3
    map_seed: int = 0
    train_on: str = "all"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.task not in TASKS:
            meant = did_you_mean(self.task, list(TASKS))
            raise ConfigError(f"data.task={self.task}: unknown; {meant}allowed: {', '.join(TASKS)}")
        require_one_of(("all", "asked"), train_on=self.train_on)
        if not 0 <= self.noise < 1:
            raise ConfigError(f"data.noise={self.noise}: must be at least 0 and below 1, e.g. data.noise=0.2")
        require_at_least(1, num_noise=self.num_noise, num_copied=self.num_copied, max_motif=self.max_motif)
        require_at_least(self._least_vocabulary, vocabulary=self.sizes.vocabulary)
        require_at_least(self._least_length, length=self.sizes.length)
        if self.task in ("in_context_recall", "noisy_recall", "memorization") and self.sizes.length % 2:
            raise ConfigError(
                f"data.length={self.length}: rows of data.task={self.task} are pairs; "
                f"use data.length={self.sizes.length + 1}"
            )

    def unread(self) -> dict[str, str]:
        """Return the keys that these settings do not read, each with the reason."""
        readers = {key: tasks for key, tasks in READERS.items() if self.task not in tasks}
        return {key: f"it is for data.task={' and '.join(tasks)}" for key, tasks in readers.items()}

    @property
    def evaluation(self) -> list[str]:
        """Return the overrides of `phase=eval` that test what this data teaches."""
        return ["evals=mad"]

    @property
    def sizes(self) -> Sizes:
        """Return the sizes of the task, with MAD's baseline for null."""
        vocabulary, length = BASELINES[self.task]
        return Sizes(
            vocabulary=vocabulary if self.vocabulary is None else self.vocabulary,
            length=length if self.length is None else self.length,
            noise=self.noise,
            num_noise=self.num_noise,
            num_copied=self.num_copied,
            max_motif=self.max_motif,
            map_seed=self.map_seed,
            train_on=self.train_on,
        )

    @property
    def vocab_size(self) -> int:
        """Count the tokens; in compression the pairs of position and token, which are the targets."""
        return self.sizes.vocabulary * (self.sizes.length if self.task == "compression" else 1)

    @property
    def seq_len(self) -> int:
        """Count the tokens of a row. Recall leaves out the last value, which is only a target."""
        return self.sizes.length - (self.task in ("in_context_recall", "noisy_recall"))

    @property
    def chance(self) -> float:
        """Return the accuracy (0 to 1) of random guessing among the tokens that can be a target."""
        vocabulary, length = self.sizes.vocabulary, self.sizes.length
        if self.task == "selective_copying":
            return 1 / (vocabulary - 2)
        if self.task == "compression":
            # the last token is always the compression token
            return ((length - 1) / (vocabulary - 1) + 1) / length
        # tokens that are never a target: noise, or the pad or query token
        special = {"in_context_recall": 0, "fuzzy_recall": 1, "noisy_recall": self.num_noise, "memorization": 1}
        return 1 / len(keys_and_values(vocabulary - special[self.task])[1])

    def make_row(self, rng: np.random.Generator, split: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Draw the tokens and the targets, both [seq_len], of one row of `split`."""
        return TASKS[self.task](self.sizes, rng, split)

    @property
    def _least_vocabulary(self) -> int:
        # a key and a value, or two symbols, and the special tokens
        least = {"fuzzy_recall": 2 * self.max_motif + 1, "noisy_recall": self.num_noise + 2, "in_context_recall": 2}
        return least.get(self.task, 3)

    @property
    def _least_length(self) -> int:
        least = {"fuzzy_recall": 6 * self.max_motif, "selective_copying": 2 * self.num_copied + 2}
        return least.get(self.task, 4)
