"""The signals that stop this process: Ctrl-C, SIGTERM, SIGHUP, and SIGUSR1, which schedulers send before the end."""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

# exit status of a process that a stop signal ended, as shells have it for Ctrl-C
INTERRUPTED = 130
NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
# Windows has the first two only
STOPPING = [signal.Signals[name] for name in NAMES if name in signal.Signals.__members__]
# requests a profile of training; where nobody handles it, it ends the process
PROFILING = [number for name, number in signal.Signals.__members__.items() if name == "SIGUSR2"]
# seconds in which a second SIGINT is the same Ctrl-C: a terminal sends it to all processes, and some pass it on
SAME_PRESS = 1.0
# from Linux's prctl.h
PR_SET_PDEATHSIG = 1


class _Stopper:
    """The handler of all stop signals: acts on the first, ignores those that follow, except for a later Ctrl-C.

    Schedulers and wrappers send signals several times, and a repeated one must not end what the first began.
    """

    def __init__(self) -> None:
        self.received: float | None = None
        self.is_holding = False
        self.announcement = ""

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.received is None:
            self.received = now
            if self.is_holding:
                self._announce()
                return
        elif number != signal.SIGINT or now - self.received < SAME_PRESS:
            return
        raise KeyboardInterrupt

    def _announce(self) -> None:
        if self.announcement and os.environ.get("RANK", "0") == "0":
            # not `print`: the code that the signal interrupted may be inside one, which cannot be entered twice
            with suppress(OSError):
                os.write(2, f"\n{self.announcement}\n".encode())


@contextmanager
def interrupt_on_signals(*, ends_process: bool = False) -> Iterator[None]:
    """Raise KeyboardInterrupt at the first stop signal within the context; requests for a profile are ignored.

    `ends_process`: the process ends after the context, so signals are ignored from then on.
    """
    handlers = dict.fromkeys(STOPPING, _Stopper()) | dict.fromkeys(PROFILING, lambda _number, _frame: None)
    with handle_signals(handlers, signal.SIG_IGN if ends_process else None):
        yield


@contextmanager
def hold_signals(announcement: str = "") -> Iterator[Callable[[], bool]]:
    """Let stop signals wait until the end of the context, where they raise KeyboardInterrupt.

    Yields a function that returns whether one was received; the first process then writes `announcement` to stderr. A
    second Ctrl-C raises KeyboardInterrupt at once.
    """
    outer = signal.getsignal(signal.SIGTERM)
    stopper = outer if isinstance(outer, _Stopper) else _Stopper()
    before = stopper.is_holding, stopper.announcement
    with handle_signals(dict.fromkeys(STOPPING, stopper)):
        stopper.is_holding, stopper.announcement = True, announcement
        try:
            yield lambda: stopper.received is not None
        finally:
            stopper.is_holding, stopper.announcement = before
        if stopper.received is not None and not stopper.is_holding:
            raise KeyboardInterrupt


@contextmanager
def handle_signals(handlers: Mapping[signal.Signals, Any], afterwards: Any = None) -> Iterator[None]:
    """Handle signals within the context, and restore the handlers before, or set `afterwards`.

    SIGHUP stays ignored in a process that was started so, by `nohup`. Other threads than the main one cannot handle
    signals, so there nothing is done.
    """
    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in handlers} if is_main else {}
    for number, handler in before.items():
        if number.name != "SIGHUP" or handler is not signal.SIG_IGN:
            signal.signal(number, handlers[number])
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if afterwards is None else afterwards)


def ignore_signals() -> None:
    """Ignore stop signals and requests for a profile from now on."""
    for number in (*STOPPING, *PROFILING):
        signal.signal(number, signal.SIG_IGN)


def signal_on_parent_death(number: signal.Signals) -> None:
    """Ask Linux to send signal `number` to this process when the one that started it dies; elsewhere do nothing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
