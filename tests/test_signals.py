"""Stop signals: the first one counts, wherever it comes; what waits for it, and what ignores it."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from nested_learning import signals
from nested_learning.signals import PROFILING, STOPPING, handle_signals, hold_signals, interrupt_on_signals

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("number", STOPPING)
def test_the_first_stop_signal_interrupts_and_those_after_it_do_not(number: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in STOPPING]
    cleaned_up = []
    with interrupt_on_signals(), pytest.raises(KeyboardInterrupt):
        try:
            signal.raise_signal(number)
        finally:
            # as a scheduler does, while the work cleans up
            for each in STOPPING:
                signal.raise_signal(each)
                cleaned_up.append(each)
    assert cleaned_up == STOPPING
    assert [signal.getsignal(each) for each in STOPPING] == before


def test_a_held_signal_waits_for_the_end_of_the_outermost_context(capfd: pytest.CaptureFixture[str]) -> None:
    done = []
    with interrupt_on_signals(), pytest.raises(KeyboardInterrupt):
        with hold_signals() as is_received:
            with hold_signals("saving first"):
                assert not is_received()
                for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                    signal.raise_signal(number)
                assert is_received()
            done.append("the inner context")
        done.append("what follows")
    assert done == ["the inner context"]
    assert capfd.readouterr().err == "\nsaving first\n"


def test_an_error_in_what_holds_a_signal_is_not_replaced() -> None:
    with interrupt_on_signals(), pytest.raises(ValueError, match="mine"), hold_signals():
        signal.raise_signal(signal.SIGTERM)
        raise ValueError("mine")


def test_a_second_ctrl_c_ends_what_the_first_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    reached = []
    # no second has to pass between the two
    monkeypatch.setattr(signals, "SAME_PRESS", 0.0)
    with interrupt_on_signals(), pytest.raises(KeyboardInterrupt), hold_signals():
        signal.raise_signal(signal.SIGINT)
        reached.append(1)
        signal.raise_signal(signal.SIGTERM)
        reached.append(2)
        signal.raise_signal(signal.SIGINT)
        reached.append(3)
    assert reached == [1, 2]


def test_nohup_is_respected_and_a_profile_asked_for_before_training_ends_nothing() -> None:
    with handle_signals({signal.SIGHUP: signal.SIG_IGN}), interrupt_on_signals(), hold_signals() as is_received:
        for number in (signal.SIGHUP, *PROFILING):
            signal.raise_signal(number)
        assert not is_received()


def test_a_process_that_ends_is_not_interrupted_any_more() -> None:
    with handle_signals({number: signal.getsignal(number) for number in (*STOPPING, *PROFILING)}):
        with interrupt_on_signals(ends_process=True):
            pass
        for number in (*STOPPING, *PROFILING):
            signal.raise_signal(number)


def test_other_threads_hold_nothing() -> None:
    found: list[Callable[[], bool]] = []

    def work() -> None:
        with interrupt_on_signals(), hold_signals() as is_received:
            found.append(is_received)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not found[0]()


# sends a signal to the own process as soon as a module is looked for
SENDER = """
import os, sys
class Sender:
    def find_spec(self, name, path, target=None):
        if name == "{module}":
            os.kill(os.getpid(), {number})
sys.meta_path.insert(0, Sender())
sys.argv[1:] = ["name=a"]
from nested_learning.command.main import main
sys.exit(main())
"""


@pytest.mark.parametrize(
    "module, number",
    [
        ("omegaconf", signal.SIGINT),
        pytest.param("hydra", signal.SIGUSR1, marks=pytest.mark.slow),
        pytest.param("torch", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("torch.nn", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("safetensors", signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
def test_a_signal_while_packages_are_imported_ends_in_one_line(
    module: str, number: signal.Signals, empty_folder: Path
) -> None:
    given = os.environ | {"PYTHONPATH": str(ROOT)}
    code = SENDER.format(module=module, number=int(number))
    done = subprocess.run([sys.executable, "-c", code], env=given, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")
    assert list(empty_folder.iterdir()) == []
