"""The cases of this experiment: settings that may break a run, the runs for each value, and what is measured."""

from dataclasses import dataclass

SIZE = (
    "data=stdlib", "data.seq_len=128", "data.batch_size=8", "data.val_rows=32", "model.dim=32", "model.num_layers=2",
    "model.num_heads=2", "steps=80", "val_every=80", "save_every=80", "log_every=5", "sampling.num_tokens=1",
    "device=cpu",
)  # fmt: skip
LENGTH_FACTOR = 8
# evaluations: the loss beyond the training length, and the norms of the memory there
BEYOND = ("evals=[perplexity]", f"evals.perplexity.length_factor={LENGTH_FACTOR}", "evals.perplexity.num_texts=16")
NORMS = ("evals=[memory]", f"evals.memory.length_factor={LENGTH_FACTOR}", "evals.memory.num_rows=8")
MEMORIZE = (
    "evals=[perplexity]",
    "evals.perplexity.length_factor=2",
    "evals.perplexity.num_texts=16",
    "memory=memorize",
)


@dataclass(frozen=True)
class Setting:
    """One value of a case: its name in the tables, the overrides of training, and those of each evaluation."""

    name: str
    overrides: tuple[str, ...]
    evaluations: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Case:
    """What varies, why it may break, and its settings.

    measured: further columns of the table: heading, name of the evaluation, metric.
    """

    name: str
    title: str
    why: str
    settings: tuple[Setting, ...]
    measured: tuple[tuple[str, str, str], ...] = ()


LAST = f"512-{128 * LENGTH_FACTOR}"
BEYOND_LENGTH = (
    ("bits per byte at 32-128", "perplexity", "bpb/32-128"),
    (f"at {LAST}", "perplexity", f"bpb/{LAST}"),
)
GROWTH = (
    *BEYOND_LENGTH,
    ("norm at 128", "memory", "read/norm/32-128"),
    (f"norm at {LAST}", "memory", f"read/norm/{LAST}"),
)


def rates() -> Case:
    """Return the case of a deep memory whose inner steps are too large."""
    settings = [
        Setting(f"max_rate={rate}", ("model=titans_deep", "model.memory.chunk=16", f"model.memory.max_rate={rate}"))
        for rate in (0.1, 0.4, 1.6, 6.4)
    ]
    why = (
        "The update of a two-layer memory has no closed form: the gradients of a chunk are taken at its start and "
        "added up, so the step grows with the chunk, and the memory can leave the region where it converges."
    )
    return Case("rate", "The inner steps of a deep memory: `model.memory.max_rate`", why, tuple(settings))


def adding() -> Case:
    """Return the case of memories that add, forget or correct, read beyond the training length."""
    models = {"adds": "linear_attention", "adds and forgets": "retnet", "corrects": "deltanet"}
    settings = [
        Setting(f"{name} ({model})", (f"model={model}", "model.memory.chunk=16"), (BEYOND, NORMS))
        for name, model in models.items()
    ]
    why = (
        "The norm of a memory that only adds grows with the text; beyond the training length its outputs leave the "
        "range that the layers above were trained on. Retention, or an objective that corrects what is stored, "
        "bounds it."
    )
    return Case("adding", "Memories that add, beyond the training length", why, tuple(settings), GROWTH)


def retention() -> Case:
    """Return the case of momentum with and without retention."""
    base = ("model=titans_lmm", "model.memory.chunk=16")
    settings = [
        Setting("momentum, retention (default)", base, (BEYOND, NORMS)),
        Setting("momentum, no retention", (*base, "model.memory.retention=none"), (BEYOND, NORMS)),
        Setting("neither", (*base, "model.memory.retention=none", "model.memory.momentum=none"), (BEYOND, NORMS)),
    ]
    why = "Momentum continues to write after a surprise has passed; without retention nothing removes it."
    return Case("retention", "Momentum without retention: `model.memory.retention`", why, tuple(settings), GROWTH)


def outer() -> Case:
    """Return the case of the optimizer's learning rate, with and without clipping."""
    settings = [
        Setting(
            f"lr x {factor}, {'clip=1.0' if clip else 'clip=null'}",
            (
                "model=hope", "model.memory.chunk=16", "model.generating_chunk=16",
                *(f"optim.groups.{group}.lr={lr * factor}" for group, lr in enumerate((3e-3, 1e-2, 3e-3))),
                f"optim.clip={'1.0' if clip else 'null'}",
            ),
        )
        for factor, clip in ((1, True), (10, True), (10, False), (100, True), (100, False))
    ]  # fmt: skip
    why = (
        "HOPE's memories generate their own keys, values and gates: an outer step that is too large changes what is "
        "written and how it is written at the same time."
    )
    return Case(
        "outer",
        "The learning rate of the optimizer, for HOPE: `optim.groups.<n>.lr`, `optim.clip`",
        why,
        tuple(settings),
    )


def memorize() -> Case:
    """Return the case of memorizing: how large steps at test time may be."""
    rates = ("0.01", "0.1", "1.0", "10.0", "100.0")
    kinds = {"transformer, level mlp": ("transformer", "mlp"), "hope_attention, level slow": ("hope_attention", "slow")}
    settings = []
    for name, (model, level) in kinds.items():
        evaluations = tuple((*MEMORIZE, f"memory.lr={lr}", f"memory.levels=[{level}]", f"name=lr{lr}") for lr in rates)
        settings.append(Setting(name, (f"model={model}",), evaluations))
    why = (
        "`memory.lr` multiplies every write. For a level that never wrote in training it is the learning rate of plain "
        "gradient descent on each segment of the text, and nothing bounds it."
    )
    return Case("study", "Memorizing at test time: `memory.lr`", why, tuple(settings))


CASES = (rates(), adding(), retention(), outer(), memorize())


def run_name(case: Case, setting: Setting, seed: int) -> str:
    """Return the name of a run; it is always the same, so that the script can resume."""
    number = [each.name for each in case.settings].index(setting.name)
    return f"{case.name}_{number}_{seed}"
