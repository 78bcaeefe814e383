"""Every model, every optimizer, with dropout and accumulation: killed at any moment, a run ends with the same bytes."""

import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import fingerprints, tiny, trace

from nested_learning.config.registry import CHOICES
from nested_learning.config.schema import Config
from nested_learning.phase.train import run

# a level whose clock lies across checkpoints: gradients gathered before one are used after it
SLOW = "[{name: fast, period: 0}, {name: slow, period: 384}]"
# every family of models and every optimizer once; -m slow runs them all with each other
PAIRS = [
    ("transformer", "adamw"),
    ("lstm", "momentum"),
    ("deltanet", "preconditioned_momentum"),
    ("ttt_mlp", "delta_momentum"),
    ("titans_deep", "deep_momentum"),
    ("titans_mac", "muon"),
    ("self_modifying", "m3"),
    ("hope", "mixed_muon"),
    ("titans_lmm", "mixed_muon_large"),
    ("hope_attention", "dgd"),
    ("retnet", "nl_l2_precond"),
]
ALL = [(model, optim) for model in sorted(CHOICES["model"]) for optim in sorted(CHOICES["optim"])]
OTHERS = [pytest.param(*pair, marks=pytest.mark.slow) for pair in ALL if pair not in PAIRS]


def test_every_optimizer_is_among_them() -> None:
    assert {optim for _, optim in PAIRS} == set(CHOICES["optim"])


def run_killed(config: Config, lines: int, delay: float) -> None:
    """Train in a forked process, and kill it `delay` seconds after it logged so many lines."""
    metrics = Path(config.out) / str(config.name) / "metrics.jsonl"
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try:
            run(config)
        finally:
            os._exit(0)
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= lines) and time.monotonic() < deadline:
        time.sleep(0.0005)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), "the run ended before it was killed"


@pytest.mark.parametrize(("model", "optim"), [*PAIRS, *OTHERS])
def test_a_killed_run_ends_with_the_bytes_and_the_trace_of_one_that_was_not(
    model: str, optim: str, tmp_path: Path
) -> None:
    given = {} if model == "lstm" else {"model__levels": SLOW}
    config = tiny(
        tmp_path, model=model, optim=optim, name="whole", steps=5, save_every=2, val_every=3, micro_batches=2,
        model__dropout=0.2, model__num_layers=1, data__val_rows=2, **given,
    )  # fmt: skip
    pick = random.Random(model + optim)
    run_killed(replace(config, name="killed"), pick.randint(1, 4), pick.uniform(0, 0.01))
    for name in ("killed", "whole"):
        run(replace(config, name=name))
    killed, whole = (tmp_path / "runs" / name for name in ("killed", "whole"))
    assert fingerprints(killed) == fingerprints(whole)
    assert trace(killed) == trace(whole)
    assert [line["step"] for line in trace(killed) if line["split"] == "train"] == list(range(1, 6))
