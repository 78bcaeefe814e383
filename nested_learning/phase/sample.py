"""`phase=sample`: let a trained model write."""

from typing import TYPE_CHECKING

from nested_learning.errors import ConfigError
from nested_learning.phase import Result
from nested_learning.phase.eval import given, refuse_other_model
from nested_learning.run import prepare_process
from nested_learning.session import Session
from nested_learning.trained import open_trained
from nested_learning.world import pick_device

if TYPE_CHECKING:
    from nested_learning.config import Config


def run(config: "Config") -> Result:
    """Read `prompt=` with the model of `checkpoint=`, draw on as `sampling.*` and `seed` say, and print the text.

    Raises CheckpointError for a checkpoint that cannot be used, ConfigError for a model that was not trained on text.
    """
    prepare_process(config.seed, pick_device(config.device))
    trained = open_trained(given(config), config.device)
    refuse_other_model(config, trained)
    if trained.tokenizer is None:
        raise ConfigError(
            f"phase=sample: {trained.checkpoint} has no tokenizer: data={trained.config.data.name} is no text; "
            "use phase=eval"
        )
    session = Session(trained.model, trained.tokenizer, policy=config.memory.name)
    print(printable(config.prompt + continuation(session, config)), flush=True)
    return Result(trained.run, {})


def printable(text: str) -> str:
    """Return `text` with control characters replaced: a model that knows little must not steer the terminal."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "\ufffd" for letter in text)


def continuation(session: Session, config: "Config") -> str:
    """Read the prompt with `session` and return the text that is drawn after it. Source: ours."""
    session.feed(config.prompt)
    how = config.sampling
    tokens = session.generate(
        how.num_tokens, temperature=how.temperature, top_k=how.top_k, top_p=how.top_p, seed=config.seed
    )
    return session.text(tokens)[0]
