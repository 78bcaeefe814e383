"""Signals that stop a run: it finishes its step and saves first."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def catch_stop_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function that returns whether Ctrl-C or SIGTERM was received; a second one ends the process at once."""
    signals = [signal.SIGINT, signal.SIGTERM]
    if threading.current_thread() is not threading.main_thread():
        # Python lets only the main thread install handlers
        signals = []
    handlers = {number: signal.getsignal(number) for number in signals}
    received = False

    def note(_number: int, _frame: FrameType | None) -> None:
        nonlocal received
        received = True
        # restored at once, so that a second signal ends the process as usual
        for each, handler in handlers.items():
            signal.signal(each, handler)

    for number in signals:
        signal.signal(number, note)
    try:
        yield lambda: received
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
