"""What a command needs, looked for before torch is loaded and before the first job of a sweep runs."""

from nested_learning.config.schema import Config


def require_files(config: Config) -> None:
    """Raise DataError or ConfigError where training would not find the files of its data, or an evaluation its inputs.

    A dry run whose vocabulary is given plans for data that is not there yet.
    """
    is_planned = config.dry_run and config.plan.vocab_size is not None
    if config.phase.trains and not is_planned:
        config.data.require_files()
        # a run that stacks on another has its tokenizer
        if config.stack_from is None:
            config.data.require_tokenizer()
    if config.phase.name == "eval":
        for options in config.evals.values():
            options.require_inputs(config.data)
