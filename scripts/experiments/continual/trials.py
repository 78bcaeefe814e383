"""The runs of this experiment and the evaluations of the trained models."""

from dataclasses import dataclass
from pathlib import Path

from nested_learning.command.compose import make_job
from nested_learning.command.main import run_phase
from nested_learning.config.option_files import open_option_files

# of a Transformer whose MLP is cut into two levels of half its width, and of one of them the period, in tokens
PERIODS = (0, 8192, 65536)


def levels(period: int) -> tuple[str, ...]:
    """Return the overrides that make a Transformer of two levels, the slow one with `period`."""
    slow = f"[{{name: fast, period: 0}}, {{name: slow, period: {period}}}]"
    return "model=transformer", "model.expansion=1.34375", f"model.levels={slow}"


THREE = "model.levels=[{name: fast, period: 0}, {name: mid, period: 8192}, {name: slow, period: 65536}]"
MODELS = {
    "transformer": ("model=transformer",),
    "hope": ("model=hope",),
    **{f"levels_{period}": levels(period) for period in PERIODS},
    "hope_fast": ("model=hope", "model.levels=[{name: fast, period: 0}, {name: slow, period: 0}]"),
    "hope_three": ("model=hope", "model.expansion=0.8125", THREE),
    "hope_slow": ("model=hope", "model.levels=[{name: fast, period: 8192}, {name: slow, period: 65536}]"),
}
# of HOPE, with one seed only
TRIED = ("hope_three", "hope_slow")
# how memories study a domain
MEMORIES = {
    "transformer": ("memory=memorize", "memory.lr=0.1"),
    "hope": ("memory=memorize", "memory.lr=0.1"),
}
# what is trained, the most important first: model, what it reads in which order, how many of the seeds
PLAN = (
    ("transformer", "forward", None),
    ("hope", "forward", None),
    *((f"levels_{period}", "forward", None) for period in PERIODS),
    *((name, "forward", 1) for name in TRIED),
    ("transformer", "reverse", None),
    ("hope", "reverse", None),
    ("transformer", "joint", 1),
    ("hope", "joint", 1),
    ("transformer", "book", 1),
    ("hope_fast", "forward", None),
)
# trained once more with the first seed: the same figures must come out
AGAIN = ("transformer", "forward")
SIZES = {
    "continual": ("evals.continual.num_rows=16",),
    "continual_memory": tuple(
        f"evals.continual_memory.{key}" for key in ("num_streams=4", "num_rows=16", "val_rows=8", "batch_size=4")
    ),
}


@dataclass(frozen=True)
class Run:
    """One training run and what it is asked, in the directory <out>/<model>_<order>_<seed>."""

    model: str
    order: str
    seed: int
    out: Path
    overrides: tuple[str, ...]
    again: bool = False

    @property
    def name(self) -> str:
        """Name the run: always the same, so that the script goes on with it."""
        return f"{self.model}_{self.order}_{self.seed}{'_again' if self.again else ''}"

    @property
    def directory(self) -> Path:
        """Return where it is."""
        return self.out / self.name

    def train(self) -> None:
        """Train it, or what is left of it."""
        experiment = ["experiment=chronological"]
        if self.order != "book":
            experiment = ["experiment=domain_sequence", f"data.order={self.order}"]
        where = (f"name={self.name}", f"out={self.out}", "device=cpu", "evals=[]")
        do([*experiment, *MODELS[self.model], f"seed={self.seed}", *where, *self.overrides])

    def evaluate(self) -> None:
        """Ask what has no answer yet: the weights after each domain, and of those after the first what memories do."""
        asked = ["phase=eval", "device=cpu"]
        if not (self.directory / "evals/continual.json").exists():
            do([*asked, f"checkpoint={self.directory}", "evals=[continual]", *SIZES["continual"]])
        answer = self.directory / "evals/continual_memory_memorize.json"
        if self.order == "forward" and self.model in MEMORIES and not self.again and not answer.exists():
            _, first, *_ = sorted((self.directory / "checkpoints").glob("step_*"))
            memory = [*MEMORIES[self.model], "evals=[continual_memory]", *SIZES["continual_memory"]]
            do([*asked, f"checkpoint={first}", *memory])


def do(overrides: list[str]) -> None:
    """Do what `python train.py <overrides>` does."""
    run_phase(make_job(open_option_files(None), overrides).config)


def make_runs(seeds: list[int], data: Path, out: Path, given: list[str]) -> list[Run]:
    """Return all runs, the most important first."""
    overrides = (f"data.folder={data.resolve()}", *given)
    runs = [Run(model, order, seed, out, overrides) for model, order, number in PLAN for seed in seeds[:number]]
    return [*runs, Run(*AGAIN, seeds[0], out, overrides, again=True)]
