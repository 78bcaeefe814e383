"""Values that no key can have are refused by name, for every key of every configuration class."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from nested_learning.config.schema import convert_config
from nested_learning.errors import ConfigError
from scripts.benchmarks.mistakes import Key, configurations, full_name, impossible, keys, replaced, unwise


def every_key() -> Iterator[tuple[dict[str, Any], Key]]:
    """Yield the plain values of each configuration with the keys of its group; of the first one, with all keys."""
    for group, config in configurations():
        values = asdict(config)
        yield from ((values, key) for key in keys(config) if group in ("", key.path[0]))


def test_a_value_that_a_type_cannot_have_is_refused_for_every_key() -> None:
    accepted = []
    for values, key in every_key():
        for value in impossible(key):
            try:
                convert_config(replaced(values, key.path, value))
            except ConfigError as error:
                assert full_name(key) in str(error) and len(str(error).splitlines()) == 1, error
            else:
                accepted.append((full_name(key), value))
    assert accepted == []


def test_a_value_that_is_unwise_is_accepted_or_refused_in_words() -> None:
    refused = 0
    for values, key in every_key():
        for value in unwise(key):
            try:
                convert_config(replaced(values, key.path, value))
            except ConfigError:
                refused += 1
    assert refused > 1000
