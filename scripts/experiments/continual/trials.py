"""The runs of this experiment and the evaluations of the trained models."""

from dataclasses import dataclass
from pathlib import Path

from nested_learning.command.compose import make_job
from nested_learning.command.main import run_phase
from nested_learning.config.option_files import open_option_files

# update periods, in tokens, of one of the two levels into which the MLP of a Transformer is split
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
# variants of HOPE, with one seed only
TRIED = ("hope_three", "hope_slow")
# memory policies of evals=continual_memory
MEMORIES = {
    "transformer": ("memory=memorize", "memory.lr=0.1"),
    "hope": ("memory=memorize", "memory.lr=0.1"),
}
# the runs, the most important first: model, order of the domains, number of seeds (None: all)
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
# trained again with the first seed: the metrics must be the same
AGAIN = ("transformer", "forward")
SIZES = {
    "continual": ("evals.continual.num_rows=16",),
    "continual_memory": tuple(
        f"evals.continual_memory.{key}" for key in ("num_streams=4", "num_rows=16", "val_rows=8", "batch_size=4")
    ),
}


@dataclass(frozen=True)
class Run:
    """One training run and its evaluations, in the directory <out>/<model>_<order>_<seed>."""

    model: str
    order: str
    seed: int
    out: Path
    overrides: tuple[str, ...]
    again: bool = False

    @property
    def name(self) -> str:
        """Return the name of the run; it is always the same, so that the script can resume."""
        return f"{self.model}_{self.order}_{self.seed}{'_again' if self.again else ''}"

    @property
    def directory(self) -> Path:
        """Return the run directory."""
        return self.out / self.name

    def train(self) -> None:
        """Train the run; an interrupted run resumes."""
        experiment = ["experiment=chronological"]
        if self.order != "book":
            experiment = ["experiment=domain_sequence", f"data.order={self.order}"]
        where = (f"name={self.name}", f"out={self.out}", "device=cpu", "evals=[]")
        run_command([*experiment, *MODELS[self.model], f"seed={self.seed}", *where, *self.overrides])

    def evaluate(self) -> None:
        """Run the missing evaluations: the weights after each domain, and memories with the weights after the first."""
        common = ["phase=eval", "device=cpu"]
        if not (self.directory / "evals/continual.json").exists():
            run_command([*common, f"checkpoint={self.directory}", "evals=[continual]", *SIZES["continual"]])
        report = self.directory / "evals/continual_memory_memorize.json"
        if self.order == "forward" and self.model in MEMORIES and not self.again and not report.exists():
            _, first, *_ = sorted((self.directory / "checkpoints").glob("step_*"))
            memory = [*MEMORIES[self.model], "evals=[continual_memory]", *SIZES["continual_memory"]]
            run_command([*common, f"checkpoint={first}", *memory])


def run_command(overrides: list[str]) -> None:
    """Run `python train.py <overrides>` in this process."""
    run_phase(make_job(open_option_files(None), overrides).config)


def make_runs(seeds: list[int], data: Path, out: Path, given: list[str]) -> list[Run]:
    """Return all runs, the most important first."""
    overrides = (f"data.folder={data.resolve()}", *given)
    runs = [Run(model, order, seed, out, overrides) for model, order, number in PLAN for seed in seeds[:number]]
    return [*runs, Run(*AGAIN, seeds[0], out, overrides, again=True)]
