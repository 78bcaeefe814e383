"""Nested Learning: everything that learns is weights, a learning rule and a clock.

`python train.py` trains a run, `from nested_learning import Session` reads it; `NestedModel` opens what it exported.
"""

from typing import TYPE_CHECKING, Any

from nested_learning.version import __version__

if TYPE_CHECKING:
    from nested_learning.hub.pretrained import NestedModel
    from nested_learning.inference.session import Session

__all__ = ["NestedModel", "Session", "__version__"]


def __getattr__(name: str) -> Any:
    """Import a class on first use: both need torch, and a mistyped command must answer before torch is loaded."""
    if name == "NestedModel":
        from nested_learning.hub.pretrained import NestedModel

        return NestedModel
    if name == "Session":
        from nested_learning.inference.session import Session

        return Session
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
