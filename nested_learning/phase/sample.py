"""`phase=sample`: generate text with a trained model."""

from typing import TYPE_CHECKING

from nested_learning.errors import ConfigError
from nested_learning.hub.open_run import open_trained
from nested_learning.inference.samples import print_continuation
from nested_learning.inference.session import Session
from nested_learning.phase import Result
from nested_learning.phase.eval import checkpoint_path, refuse_other_model
from nested_learning.train.run import prepare_process
from nested_learning.world.joining import pick_device

if TYPE_CHECKING:
    from nested_learning.config.schema import Config


def run(config: "Config") -> Result:
    """Print `prompt=` with the continuation that the model of `checkpoint=` generates, as `sampling.*` and `seed` say.

    Raises CheckpointError for a checkpoint that cannot be used, ConfigError for a model that was not trained on text.
    """
    config.memory.refuse_memorize("sample")
    prepare_process(config.seed, pick_device(config.device))
    trained = open_trained(checkpoint_path(config), config.device, config.weights)
    refuse_other_model(config, trained)
    if trained.tokenizer is None:
        raise ConfigError(
            f"phase=sample: {trained.checkpoint} has no tokenizer: data={trained.config.data.name} is not text; "
            "use phase=eval"
        )
    session = Session(trained.model, trained.tokenizer, policy=config.memory)
    print_continuation(session, config.prompt, config.sampling, config.seed)
    return Result(trained.run, {})
