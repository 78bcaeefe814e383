"""`phase=export`: write a trained model as a directory that can be shared."""

from pathlib import Path
from typing import Any

from nested_learning.config.schema import Config
from nested_learning.errors import ConfigError
from nested_learning.hub.open_run import Trained, open_trained
from nested_learning.hub.pretrained import NestedModel
from nested_learning.phase import Result
from nested_learning.phase.config import ExportConfig
from nested_learning.phase.eval import checkpoint_path, refuse_other_model


def run(config: Config) -> Result:
    """Write the model of `checkpoint=` to `phase.to`, by default the folder `export` of its run; print how to load it.

    Raises CheckpointError for a checkpoint that cannot be used, ConfigError where `phase.to` exists.
    """
    assert isinstance(config.phase, ExportConfig)
    trained = open_trained(checkpoint_path(config), "cpu", config.weights)
    refuse_other_model(config, trained)
    target = trained.run / "export" if config.phase.to is None else Path(config.phase.to)
    if target.exists():
        raise ConfigError(f"phase.to={target}: exists already; give another phase.to=<directory>")
    exported = NestedModel(trained.config.model, trained.model, trained.tokenizer, describe_training(trained))
    exported.save_pretrained(target)
    print(
        f"exported: {target}\nuse it:   from nested_learning import NestedModel; "
        f'model = NestedModel.from_pretrained("{target}")',
        flush=True,
    )
    return Result(trained.run, {})


def describe_training(trained: Trained) -> dict[str, Any]:
    """Return how the model was trained, for its model card."""
    progress, config = trained.progress, trained.config
    made = {"step": progress.step, "tokens": progress.tokens, "data": config.data.name, "optim": config.optim.name}
    metrics = {name: round(value, 6) for name, value in progress.metrics.items() if name.startswith("val/")}
    return made | {"seed": config.seed, "data sha256": progress.source} | metrics
