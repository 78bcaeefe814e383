"""Keys that are given and would not be read: they are refused. This module must not import torch."""

from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, Protocol, runtime_checkable

from nested_learning.errors import ConfigError


@runtime_checkable
class Selective(Protocol):
    """A configuration class that does not read all of its keys with all of its settings."""

    def unread(self) -> Mapping[str, str]:
        """Return the keys that are not read with the other settings, each with the reason: "`decay` is for kind=wsd".

        A key may be inside another: `data.tokenizer` at the root.
        """
        ...


def refuse_unread(config: Any, given: Mapping[str, Any]) -> None:
    """Raise ConfigError for the first key of the command line that `config`, all settings of a run, does not read.

    `given`: the values by full key. A value that turns something off (null, false, 0, [], "") asks for nothing.
    """
    for key, value in given.items():
        names = key.split(".")
        node = config
        for depth, name in enumerate(names):
            reasons = node.unread() if isinstance(node, Selective) else {}
            inside = ".".join(names[depth:])
            for unread, reason in reasons.items():
                if value and f"{inside}.".startswith(f"{unread}."):
                    raise ConfigError(f"{key}: would not be read: {reason}; leave {key} out")
            node = _part(node, name)


def _part(node: Any, name: str) -> Any:
    """Return what `node` holds under `name`, None for nothing that has settings of its own."""
    if is_dataclass(node):
        return vars(node).get(name)
    if isinstance(node, dict):
        return node.get(name)
    if isinstance(node, list) and name.isdecimal() and int(name) < len(node):
        return node[int(name)]
    return None
