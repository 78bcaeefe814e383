"""Open a trained run: its model, tokenizer and configuration from a run directory or checkpoint."""

from dataclasses import dataclass
from pathlib import Path

from nested_learning import checkpoint
from nested_learning.config import schema
from nested_learning.data.tokenizers.tokenizer import FILE_NAME, Tokenizer
from nested_learning.data.tokenizers.tokenizer_files import open_tokenizer
from nested_learning.errors import CheckpointError, ConfigError
from nested_learning.nn.language_model import LanguageModel
from nested_learning.world.joining import pick_device


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A checkpoint, opened: `run` is its run directory, or the checkpoint itself when it was moved out of one.

    `config` is the run's, `tokenizer` is None for data that is not text, `model` is in eval mode.
    """

    run: Path
    checkpoint: Path
    config: schema.Config
    progress: checkpoint.Progress
    tokenizer: Tokenizer | None
    model: LanguageModel


def open_trained(path: Path, device: str, weights: str = "model") -> Trained:
    """Open the checkpoint `path`, or the latest of the run directory `path`, on `device`, as `device=` names it.

    `weights`: "model" for the trained weights, "ema" for their average. Every file is checked against its hash first.
    Raises CheckpointError when the checkpoint is missing or damaged, or has no average, ConfigError when it was made
    with options that this version does not have, or the device is not there.
    """
    torch_device = pick_device(device)
    if not path.is_dir():
        raise CheckpointError(
            f"checkpoint={path}: no such directory; give a run directory or one of its checkpoints/step_*"
        )
    directory = checkpoint.find(path)
    checkpoint.verify(directory)
    saved = read_config(directory)
    tokenizer = open_tokenizer(directory) if (directory / FILE_NAME).exists() else None
    vocab_size = saved.data.num_tokens(saved.seed) if tokenizer is None else tokenizer.vocab_size
    model = saved.model.build(vocab_size, saved.seed)
    checkpoint.load_model(directory, model)
    if weights == "ema":
        checkpoint.load_averaged(directory, model)
    return Trained(
        run=checkpoint.run_of(directory),
        checkpoint=directory,
        config=saved,
        progress=checkpoint.read_progress(directory),
        tokenizer=tokenizer,
        model=model.to(torch_device).eval(),
    )


def read_config(directory: Path) -> schema.Config:
    """Read the configuration of a checkpoint. Raises CheckpointError for one that this version does not accept."""
    try:
        return schema.from_yaml(directory / checkpoint.CONFIG)
    except ConfigError as error:
        raise CheckpointError(
            f"{directory} was made by another version of nested_learning: {error}; use the version whose commit the "
            "environment.json of its run names"
        ) from error
