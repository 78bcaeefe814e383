"""A key of the command line that its run would not read is refused, with the reason."""

from functools import cache
from pathlib import Path

import pytest

from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.config.registry import CHOICES
from nested_learning.config.schema import Config, to_yaml
from nested_learning.config.unread import refuse_unread
from nested_learning.errors import ConfigError

FILES = open_option_files(None)
NEITHER = "essay haystack"
# settings -> keys that are not read with them, each with a word of the reason
UNREAD = {
    "": {
        "plan.gpu": "dry_run=true",
        "prompts": "sample_every",
        "optim.schedule.decay": "kind=wsd",
        "optim.groups.0.schedules.lr.decay": None,
        "model.memory.expansion": "depth=1",
    },
    "phase=eval": {
        "logger": "phase=eval",
        "dry_run": "phase=eval",
        "dtype": "phase=eval",
        "compile": "phase=eval",
        "steps": "phase=eval",
        "optim": "phase=eval",
        "optim.groups.0.lr": "phase=eval",
        "sampling.top_k": "phase=eval",
        "prompt": "phase=eval",
        "world.parallel": "phase=eval",
        "resume": "phase=eval",
        "out": "phase=eval",
        "data.tokenizer": "brings its tokenizer",
        "data.vocab_size": "brings its tokenizer",
        "data.val_rows": None,
        "seed": None,
        "name": None,
        "device": None,
        "backend": None,
        "weights": None,
        "memory": None,
        "model.dim": None,
        "experiment": None,
    },
    "phase=eval launcher=joblib": {"out": None, "launcher.n_jobs": None},
    "phase=eval evals=[niah,babilong]": {"evals.niah.path": NEITHER, "evals.babilong.books": None, "evals": None},
    "phase=eval evals=niah evals.niah.tasks=[niah_single_2]": {"evals.niah.path": None},
    "phase=sample sampling.temperature=0": {
        "evals": "phase=sample",
        "data.val_rows": "phase=sample",
        "name": "phase=sample",
        "backend": "phase=sample",
        "sampling.top_k": "likeliest",
        "sampling.top_p": "likeliest",
        "sampling.num_tokens": None,
        "prompt": None,
        "seed": None,
        "memory": None,
        "device": None,
    },
    "phase=export": {"device": "phase=export", "memory": "phase=export", "seed": "phase=export", "phase.to": None},
    "dry_run=true sample_every=3 sampling.temperature=0.5": {"plan.gpu": None, "prompts": None, "sampling.top_k": None},
    "stack_from=RUN model=hope_attention": {"data.tokenizer": "brings its tokenizer", "data.seq_len": None},
    "model=lstm recompute=block backend=eager": {"recompute": None, "backend": None},
    "model=titans_mac recompute=chunk backend=cpp": {"recompute": None, "backend": None},
    "model=titans_deep": {"model.memory.expansion": None},
    "optim.schedule.kind=constant optim.schedule.warmup=0": {
        "optim.schedule.final": "kind=constant",
        "optim.schedule.start": "warmup",
    },
    "optim.schedule.kind=wsd": {"optim.schedule.decay": None, "optim.schedule.final": None},
    "data=mad data.task=noisy_recall": {
        "data.noise": None,
        "data.map_seed": "memorization",
        "data.num_copied": "selective_copying",
    },
    "data=needles": {"data.path": NEITHER},
    "data=classes data.path=x data.is_joint=true": {"data.replay": "is_joint", "data.val_per_label": None},
    "data=classes data.path=x data.validation_path=y": {"data.val_per_label": "validation_path", "data.replay": None},
    "data=rows data.path=x data.vocab_size=9 data.validation_path=y": {"data.val_fraction": "validation_path"},
    "launcher=submitit launcher.cluster=local": {"launcher.partition": "slurm", "launcher.nodes": None},
    "launcher=submitit": {"launcher.partition": None},
}
ROWS = [(lines, key, word) for lines, keys in UNREAD.items() for key, word in keys.items()]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run directory with its configuration only."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "config.yaml").write_text(to_yaml(make_job(FILES, ["model=transformer"]).config))
    return folder


@cache
def load(lines: str, run: Path) -> Config:
    """Compose a configuration; RUN is the run, which every phase but training reads."""
    given = [line.replace("RUN", str(run)) for line in lines.split()]
    return make_job(FILES, [*given, f"checkpoint={run}"] if "phase=" in lines else given).config


@pytest.mark.parametrize("lines, key, word", ROWS)
def test_a_key_that_would_not_be_read_is_refused(lines: str, key: str, word: str | None, run: Path) -> None:
    config = load(lines, run)
    # what turns something off asks for nothing
    refuse_unread(config, {key: None, f"{key}.x": False})
    if word is None:
        refuse_unread(config, {key: "given"})
        return
    with pytest.raises(ConfigError) as error:
        refuse_unread(config, {"steps": 0, key: "given"})
    assert str(error.value).startswith(f"{key}: would not be read: ") and word in str(error.value)
    assert str(error.value).endswith(f"; leave {key} out")


def test_keys_and_groups_of_the_command_line_are_checked_and_those_of_an_experiment_are_not(run: Path) -> None:
    reading = ["phase=eval", f"checkpoint={run}"]
    for given in (
        [*reading, "logger=wandb"],
        [*reading, "optim.groups[0].lr=1"],
        [*reading, "optim.groups.matrices.lr=1"],
        [*reading, "+prompts=[x]"],
        ["model=transformer", "recompute=chunk"],
        ["model=lstm", "backend=cpp"],
    ):
        with pytest.raises(ConfigError, match="would not be read"):
            make_job(FILES, given)
    assert make_job(FILES, [*reading, "experiment=needle", "logger=[]"]).config.steps == 600


def test_every_phase_reads_keys_that_there_are(run: Path) -> None:
    keys = set(vars(load("", run)))
    assert [name for name, kind in CHOICES["phase"].items() if not (kind.reads or set()) <= keys] == []
