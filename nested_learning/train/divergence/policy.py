"""The decision about a step that is not finite: a pure function of numbers that all processes share."""

from collections.abc import Sequence
from typing import NamedTuple

POLICIES = ("raise", "skip", "rollback")
# a run that needs more than MAX_SKIPPED skipped steps among the last WINDOW is stopped
MAX_SKIPPED, WINDOW = 5, 100


class Verdict(NamedTuple):
    """The decision, in flags and as a sentence `done`, and the numbers of all steps that are skipped from now on."""

    stops: bool
    rolls_back: bool
    skipped: list[int]
    done: str


def decide(policy: str, step: int, skipped: Sequence[int], saved: int | None, *, weights_are_finite: bool) -> Verdict:
    """Decide about `step` (1 is the first), whose loss or gradient is not finite; the steps `skipped` were skipped.

    `raise` stops. `skip` skips this step. `rollback` returns to the checkpoint of step `saved` and skips the step at
    fault: this one or, when the weights themselves are not finite, the last one that updated them. It stops as well
    after too many skipped steps, and where the policy cannot help. Not called for a large but finite loss.
    """
    updated = (each for each in range(step - 1, 0, -1) if each not in skipped)
    culprit = step if weights_are_finite else next(updated, 0)
    skipping = sorted({*skipped, culprit})
    number = sum(each > step - WINDOW for each in skipping)
    if policy == "raise":
        why = "training stopped, as divergence=raise says"
    elif number > MAX_SKIPPED:
        why = f"training stopped: {number} of the last {WINDOW} steps were not finite, more than {MAX_SKIPPED}"
    elif policy == "skip" and not weights_are_finite:
        why = "training stopped: the weights themselves are not finite; only divergence=rollback can undo that"
    elif policy == "rollback" and (saved is None or culprit <= saved):
        why = "training stopped: the last checkpoint already has weights that are not finite"
    elif policy == "rollback":
        return Verdict(False, True, skipping, f"rolled back to step {saved}, and skips step {culprit}")
    else:
        return Verdict(False, False, skipping, f"skipped step {culprit}")
    return Verdict(True, False, list(skipped), why)
