"""A process does not outlive the one that started it."""

import ctypes
import signal
import sys

# from Linux's prctl.h
PR_SET_PDEATHSIG = 1


def signal_on_parent_death(signum: signal.Signals) -> None:
    """Ask Linux to send `signum` to this process when the one that started it dies; elsewhere do nothing.

    Nobody else would stop it: when torchrun is killed, its workers are not, and two generations of workers would write
    one run.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signum)
