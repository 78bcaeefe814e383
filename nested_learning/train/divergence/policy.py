"""What follows from a step that is not finite: a pure function of numbers that all processes share."""

from collections.abc import Sequence
from typing import NamedTuple

POLICIES = ("raise", "skip", "rollback")
# a run that can only go on by leaving out more than so many of so many steps has diverged for good
MOST, OF_STEPS = 5, 100


class Verdict(NamedTuple):
    """What is done, in one sentence too, and the numbers of all steps that are left out from now on."""

    stops: bool
    goes_back: bool
    skipped: list[int]
    done: str


def judge(policy: str, step: int, skipped: Sequence[int], saved: int | None, *, weights_are_finite: bool) -> Verdict:
    """Decide about `step` (1 is the first), whose loss or gradient is not finite; `skipped` were left out before.

    `raise` stops. `skip` leaves out this step. `rollback` goes back to the checkpoint of step `saved` and leaves out
    the step that did the harm: this one, or the last one that was learned when the weights themselves are not finite.
    Leaving out too many steps, or what cannot help, stops. Large numbers are finite, and nothing is done about them.
    """
    learned = (each for each in range(step - 1, 0, -1) if each not in skipped)
    culprit = step if weights_are_finite else next(learned, 0)
    left_out = sorted({*skipped, culprit})
    number = sum(each > step - OF_STEPS for each in left_out)
    if policy == "raise":
        why = "training stopped, as divergence=raise says"
    elif number > MOST:
        why = f"training stopped: {number} of the last {OF_STEPS} steps were not finite, more than {MOST}"
    elif policy == "skip" and not weights_are_finite:
        why = "training stopped: the weights themselves are not finite, which only divergence=rollback can undo"
    elif policy == "rollback" and (saved is None or culprit <= saved):
        why = "training stopped: the checkpoint to go back to has the weights that are not finite"
    elif policy == "rollback":
        return Verdict(False, True, left_out, f"went back to step {saved}, and leaves out step {culprit}")
    else:
        return Verdict(False, False, left_out, f"left out step {culprit}")
    return Verdict(True, False, list(skipped), why)
