"""`branch_from`: a new run that starts from a checkpoint of another, such as a learning-rate decay or other data."""

from dataclasses import replace
from pathlib import Path

from nested_learning import checkpoint
from nested_learning.checkpoint import Progress
from nested_learning.data.source import Source
from nested_learning.errors import CheckpointError, ConfigError
from nested_learning.nn.language_model import LanguageModel
from nested_learning.optim.optimizer import Optimizer
from nested_learning.train.recovery import load_checkpoint


def branch(origin: Path, steps: int, source: Source, model: LanguageModel, optimizer: Optimizer, seed: int) -> Progress:
    """Fill model and optimizer from `origin`, a run or step directory; return the progress of a run that continues it.

    The new run keeps the step count of `origin`: with the same data, seed and schedule it gives the same bytes.
    `origin` is not changed. Raises CheckpointError for a checkpoint that is damaged or made for another model,
    optimizer or tokenizer, ConfigError when no step is left to make. For schedules with a stable phase see Hu et al.,
    arXiv 2404.06395, section 4.
    """
    saved = checkpoint.find(origin)
    checkpoint.verify(saved)
    progress = checkpoint.read_progress(saved)
    tokenizer = None if source.tokenizer is None else source.tokenizer.fingerprint
    if progress.tokenizer != tokenizer:
        raise CheckpointError(
            f"branch_from={origin}: its tokens are made by another tokenizer; leave data.tokenizer and "
            "data.vocab_size out, or bring the old files back"
        )
    if progress.step >= steps:
        raise ConfigError(
            f"branch_from={origin}: has made {progress.step} of steps={steps} already; give more, such as "
            f"steps={2 * progress.step}"
        )
    return replace(load_checkpoint(saved, model, optimizer), seed=seed, source=source.fingerprint, best={})
