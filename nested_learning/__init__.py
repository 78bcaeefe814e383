"""Nested Learning: everything that learns is weights, a learning rule and a clock.

`from nested_learning import Session` reads a trained run; `python train.py` makes one.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nested_learning.session import Session

__version__ = "0.1.0"
__all__ = ["Session", "__version__"]


def __getattr__(name: str) -> Any:
    """Import `Session` on first use: it needs torch, and a mistyped command must answer before torch is loaded."""
    if name == "Session":
        from nested_learning.session import Session

        return Session
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
