"""With sums in a fixed order a run ends with the same bytes whatever the number of processes, also if it changes."""

import json
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tiny import fingerprints, tiny, trace
from together import start, together, wait
from world.members import run_all, run_with_accident

from nested_learning.config.schema import Config
from nested_learning.errors import ConfigError
from nested_learning.phase.train import run

EXACT = {"micro_batches": 4, "data__batch_size": 8, "world__reduction": "deterministic", "model__dropout": 0.1}
MODELS = ("transformer", "titans_lmm", "hope")


def exact(folder: Path, **given) -> Config:
    return tiny(folder, **{"optim": "mixed_muon"} | EXACT | given)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run every model with one, two and four processes; return the folder of the runs."""
    folder = tmp_path_factory.mktemp("elastic")
    for size in (1, 2, 4):
        given = {"steps": 2, "model__num_layers": 1, "data__seq_len": 16}
        configs = [exact(folder, name=f"{model}_{size}", model=model, **given) for model in MODELS]
        together(run_all, size, configs)
    return folder / "runs"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("size", [2, 4])
def test_any_number_of_processes_leaves_the_same_bytes_and_the_same_trace(model, size, runs):
    alone, together_ = runs / f"{model}_1", runs / f"{model}_{size}"
    assert fingerprints(together_) == fingerprints(alone)
    assert trace(together_) == trace(alone)
    assert len(trace(alone)) == 4


def test_a_run_killed_with_four_processes_resumes_with_one_and_then_with_two(tmp_path):
    config = exact(tmp_path, name="killed", model="transformer", steps=16, save_every=2, val_every=7)
    directory, delay = tmp_path / "runs" / "killed", random.Random(0)
    for size, lines in ((4, 4), (1, 10)):
        members, _ = start(run_all, size, [config])
        wait_for_lines(directory / "metrics.jsonl", lines)
        time.sleep(delay.uniform(0, 0.05))
        os.kill(members[-1].pid, signal.SIGKILL)
        codes = wait(members)
        assert codes[-1] == -signal.SIGKILL and 0 not in codes, codes
    together(run_all, 2, [config])
    whole = run(replace(config, name="whole")).directory
    assert fingerprints(directory) == fingerprints(whole) and trace(directory) == trace(whole)
    started = json.loads((directory / "environment.json").read_text())
    assert [each["from_step"] > 0 for each in [*started["earlier"], started]] == [False, True, True]


def wait_for_lines(metrics: Path, count: int) -> None:
    """Wait until a run has logged this many lines."""
    deadline = time.monotonic() + 60
    while not (metrics.exists() and metrics.read_bytes().count(b"\n") >= count):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_when_one_process_is_killed_the_others_end_and_the_run_resumes_with_fewer(tmp_path):
    config = tiny(tmp_path, name="a", steps=8, data__batch_size=6, save_every=2, model__num_layers=1)
    members, _ = start(run_with_accident, 3, [config], 1, 6, "killed")
    codes = wait(members, 60)
    assert codes[1] == -signal.SIGKILL and codes[0] == codes[2] == 1, codes
    together(run_all, 2, [config])
    directory = tmp_path / "runs" / "a"
    assert [line["step"] for line in trace(directory) if line["split"] == "train"] == list(range(1, 9))
    assert json.loads((directory / "environment.json").read_text())["from_step"] == 4


def test_a_process_that_does_not_answer_counts_as_dead_after_the_timeout(tmp_path):
    config = tiny(tmp_path, name="a", data__batch_size=4, world__timeout=3)
    members, _ = start(run_with_accident, 2, [config], 1, 3, "hangs")
    members[0].join(30)
    assert members[0].exitcode == 1
    wait(members, 0)


def test_an_infinite_gradient_on_one_process_stops_all(tmp_path):
    plans = {"ddp": {}, "fsdp": {"world__parallel": "fsdp"}, "deterministic": EXACT}
    given = {"steps": 3, "data__batch_size": 4, "model__num_layers": 1}
    configs = [tiny(tmp_path, name=name, **given | plan) for name, plan in plans.items()]
    first, second = together(run_with_accident, 2, configs, 1, 2, "infinite")
    assert first == second and all("diverged at step 2" in words for words in first), first


def test_micro_batches_that_deterministic_sums_cannot_use_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="give micro_batches, for example micro_batches=4"):
        exact(tmp_path, micro_batches="null")
    with pytest.raises(ConfigError, match=r"world\.reduction=deterministic: world\.parallel=fsdp"):
        exact(tmp_path, world__parallel="fsdp")
    with pytest.raises(ConfigError, match=r"world\.shards=2 is for world\.parallel=fsdp"):
        tiny(tmp_path, world__shards=2)
    with pytest.raises(ConfigError, match="reads the inputs of layers"):
        run(tiny(tmp_path, optim="dgd", **EXACT))
