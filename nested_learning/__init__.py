"""Nested Learning: optimizers and memories share one interface: weights, an update rule and a period.

`python train.py` trains a run, `Session` generates text with it, `NestedModel` opens an exported one.
"""

from typing import TYPE_CHECKING, Any

from nested_learning.version import __version__

if TYPE_CHECKING:
    from nested_learning.hub.pretrained import NestedModel
    from nested_learning.inference.session import Session

__all__ = ["NestedModel", "Session", "__version__"]


def __getattr__(name: str) -> Any:
    """Import a class on first use: both need torch, and a mistyped command must fail before torch is loaded."""
    if name == "NestedModel":
        from nested_learning.hub.pretrained import NestedModel

        return NestedModel
    if name == "Session":
        from nested_learning.inference.session import Session

        return Session
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
