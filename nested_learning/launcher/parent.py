"""End a process when the one that started it dies."""

import ctypes
import signal
import sys

# from Linux's prctl.h
PR_SET_PDEATHSIG = 1


def signal_on_parent_death(signum: signal.Signals) -> None:
    """Ask Linux to send `signum` to this process when the one that started it dies; elsewhere do nothing.

    When torchrun is killed, its workers are not: a restarted run would have two sets of workers that write into it.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signum)
