"""Runs small enough for a test: real parts, tiny sizes; also functions that compare two runs."""

import json
import multiprocessing
import random
from hashlib import sha256
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.config.schema import Config
from nested_learning.inference.config import MemorizeConfig

WORDS = ("def", "return", "self", "state", "level", "memory", "import", "for", "in", "range", "print", "None", "True")


def write_text(folder: Path) -> Path:
    """Write a few kB of text that looks a little like code, the same at every call; return the file."""
    pick = random.Random(0)
    lines = [" ".join(pick.choice(WORDS) for _ in range(6)) for _ in range(400)]
    path = folder / "text.py"
    path.write_text("\n".join(lines))
    return path


def tiny(folder: Path, **given: Any) -> Config:
    """Configure a run in `folder` of two layers of width 16 on 32 tokens; `given` overrides, `__` stands for a dot."""
    data = given.get("data", "text")
    values: dict[str, Any] = {
        "model": "transformer", "optim": "adamw", "data": "text", "out": folder / "runs", "steps": 6,
        "val_every": 3, "save_every": 100, "log_every": 1, "device": "cpu", "evals": "[]",
        "model__dim": 16, "model__num_layers": 2, "model__num_heads": 2,
        "data__batch_size": 4, "data__val_rows": 5, "sampling__num_tokens": 4,
    }  # fmt: skip
    if data == "text":
        values |= {"data__path": write_text(folder), "data__seq_len": 32}
    lines = [f"{key.replace('__', '.')}={value}" for key, value in (values | given).items()]
    return make_job(open_option_files(None), lines).config


def reading(run: Path, phase: str, **given: Any) -> Config:
    """Configure a `phase` that reads the trained `run`; `given` overrides, `__` stands for a dot."""
    values: dict[str, Any] = {"phase": phase, "checkpoint": run}
    lines = [f"{key.replace('__', '.')}={value}" for key, value in (values | given).items()]
    return make_job(open_option_files(None), lines).config


def memorize_policy(**given: Any) -> MemorizeConfig:
    """Return the default memorize policy with the options in `given` replaced."""
    return MemorizeConfig(**(open_option_files(None).read("memory/memorize") | given))


def server() -> ForkServerContext:
    """Return the fork server of tests: processes start fast, because it has imported torch."""
    context = multiprocessing.get_context("forkserver")
    # the counter of operations imports torch's compiler, which takes longer than a run; shards take half a second
    context.set_forkserver_preload(["nested_learning.phase.train", "torch._dynamo", "torch.distributed.fsdp"])
    return context


def in_new_process(config: Config) -> ForkServerProcess:
    """Start `phase=train` in a new process."""
    process = server().Process(target=_train, args=(config,))
    process.start()
    return process


def _train(config: Config) -> None:
    from nested_learning.phase.train import run

    run(config)


def trace(run: Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl without what depends on the clock."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if not name.startswith("perf/")} for line in lines]


def fingerprints(run: Path) -> dict[str, str]:
    """Return the sha256 of the tensors in the latest checkpoint of `run`."""
    latest = run / "checkpoints" / (run / "checkpoints" / "latest").read_text().strip()
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in sorted(latest.glob("*.safetensors"))}
