"""What a command needs, looked for before torch is loaded and before the first job of a sweep runs."""

from nested_learning.config.schema import Config


def check_inputs(config: Config) -> None:
    """Raise DataError or ConfigError where files are missing, or a memory that is trained could diverge.

    A dry run whose vocabulary is given plans for data that is not there yet.
    """
    if config.phase.trains:
        config.model.refuse_divergence()
    is_planned = config.dry_run and config.plan.vocab_size is not None
    if config.phase.trains and not is_planned:
        config.data.require_files()
        # a run that stacks on another has its tokenizer
        if config.stack_from is None:
            config.data.require_tokenizer()
    if config.phase.name == "eval":
        for options in config.evals.values():
            options.require_inputs(config.data)
