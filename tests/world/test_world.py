"""Processes that train together, for real: torchrun, two processes, gloo."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import tiny, trace
from together import together
from world.members import add_up

from nested_learning.errors import ConfigError
from nested_learning.phase.train import run
from nested_learning.world.joining import open_world, pick_backend, pick_device

TESTS = Path(__file__).parents[1]

TALK = """
import sys, torch
from nested_learning.errors import ConfigError
from nested_learning.world.joining import open_world

def fail():
    raise ConfigError("made up")

with open_world("cpu") as world:
    assert world.backend == "gloo" and world.size == 2
    assert world.sum([world.rank + 1, 0.5]) == [3.0, 1.0]
    assert world.share(lambda: f"from {world.rank}: é") == "from 0: é"
    try:
        world.share(fail)
    except ConfigError as error:
        assert str(error) == "made up"
    else:
        raise AssertionError("an error of the first process must reach all")
    model = torch.nn.Linear(2, 1, bias=False)
    torch.nn.init.ones_(model.weight)
    reduction = world.reduction(model)
    with reduction.micro_batch(is_last=False):
        reduction.module(torch.full((1, 2), float(world.rank))).sum().backward()
    assert model.weight.grad.eq(world.rank).all()
    with reduction.micro_batch(is_last=True):
        reduction.module(torch.full((1, 2), 10.0 * world.rank)).sum().backward()
    # the mean over processes of 0 and of 1 + 10
    assert model.weight.grad.eq(5.5).all(), model.weight.grad

from nested_learning.phase.train import run
from tiny import tiny
from pathlib import Path
out = Path(sys.argv[1])
run(tiny(out, steps=5, data__batch_size=8, micro_batches=4, val_every=2))
try:
    run(tiny(out, data__batch_size=7))
except ConfigError as error:
    # in one write, or the two processes fall into each other's words
    sys.stdout.write(f"refused: {error}\\n")
"""


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """Run TALK under torchrun, once for all tests; return its folder and what it printed."""
    folder = tmp_path_factory.mktemp("world")
    (folder / "talk.py").write_text(TALK)
    places = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, str(folder / "talk.py"), str(folder)],
        env=os.environ | {"PYTHONPATH": places, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_two_processes_make_one_run_directory(two_processes):
    folder, _ = two_processes
    assert len(list((folder / "runs").iterdir())) == 1


def test_two_processes_learn_the_same_as_one(two_processes, tmp_path):
    folder, _ = two_processes
    (together,) = (folder / "runs").iterdir()
    alone = run(tiny(tmp_path, steps=5, data__batch_size=8, val_every=2)).directory
    pairs = list(zip(trace(together), trace(alone), strict=True))
    assert len(pairs) == 9
    for one, other in pairs:
        assert one.pop("split") == other.pop("split")
        # where two tokens are as good as equally likely, rounding decides which of them is guessed
        assert one.pop("val/accuracy", 0.0) == pytest.approx(other.pop("val/accuracy", 0.0), abs=0.02)
        assert one == pytest.approx(other, rel=1e-4)


def test_all_processes_find_an_error_and_print_it_once_each(two_processes):
    _, printed = two_processes
    assert printed.count("refused: data.batch_size=7") == 2
    assert printed.count("next: ") == 1


def test_every_one_of_three_processes_counts_once_in_a_sum():
    expected = {"sum": [111.0, 222.0], "gather": [[1.0], [10.0], [100.0]], "total": 111.0}
    assert together(add_up, 3) == [expected] * 3


def test_with_one_process_every_operation_is_local():
    with open_world("cpu") as world:
        model = torch.nn.Linear(2, 1)
        assert world.size == 1 and world.is_first
        assert world.sum([1.0, 2.0]) == [1.0, 2.0] and world.share(lambda: "x") == "x"
        assert world.reduction(model).module is model and not world.is_sharding
        assert not torch.distributed.is_initialized()


def test_what_this_machine_lacks_is_refused_with_the_override_that_works():
    cpu = torch.device("cpu")
    with pytest.raises(ConfigError, match=r"use world.backend=auto"):
        pick_backend("nccl", cpu, 1)
    with pytest.raises(ConfigError, match="device=mps: several processes"):
        pick_backend("auto", torch.device("mps"), 2)
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"device=cuda: not available here; use device=auto"):
            pick_device("cuda")
        with pytest.raises(ConfigError, match=r"device=cuda:1: not available here; use device=auto"):
            pick_device("cuda:1")


def test_a_device_may_have_the_number_that_pytorch_gives_it(monkeypatch):
    assert pick_device("cpu:0") == pick_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [pick_device(name) for name in ("cuda", "cuda:0", "cuda:1")] == [
        torch.device("cuda", number) for number in (0, 0, 1)
    ]
    with pytest.raises(ConfigError, match="the GPUs here are cuda:0 to cuda:1; use device=cuda:1"):
        pick_device("cuda:2")
    with pytest.raises(ConfigError, match="cannot share one GPU; use device=cuda"):
        pick_device("cuda:0", local_rank=1)
    for name in ("cuda:", "cuda:-1", "cuda:1.0", "cuda:x", "cpu:1", "mps:1", "auto:0", "gpu", "CUDA", "", "cuda:0 "):
        with pytest.raises(ConfigError, match=r"allowed: auto, cpu, cuda, mps, cuda:<number>$"):
            pick_device(name)


def test_auto_takes_the_best_device_and_its_backend(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device("auto", 1) == torch.device("cuda", 1)
    assert pick_backend("auto", torch.device("cuda", 0), 2) == "nccl"
    with pytest.raises(ConfigError, match="finds only 2 GPU"):
        pick_device("cuda", 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device("auto") == torch.device("cpu")
