"""The runs of this experiment, as overrides of the command line, and the evaluations of each."""

from collections.abc import Iterator
from dataclasses import dataclass

# the chunk changes only the speed of most memories; for hope also how often its generating memories are updated
CHUNK = 16
MEMORY = (f"model.memory.chunk={CHUNK}",)
# two layers of this window see 2 x (16 - 1) = 30 tokens back, fewer than the gap of 32
WINDOW, GAP, PAIRS = 16, 32, 4
HOPE = ("model=hope", *MEMORY, f"model.generating_chunk={CHUNK}")

# these stay longer at the plateau where the values are known but not their keys
SLOW = ("steps=1200",)
GAP_MODELS: dict[str, tuple[str, ...]] = {
    "titans_lmm": ("model=titans_lmm", *MEMORY),
    "hope": HOPE,
    "transformer_window": ("model=transformer", f"model.window={WINDOW}"),
    "transformer": ("model=transformer", *SLOW),
    "titans_mag": ("model=titans_mag", *MEMORY, f"model.window={WINDOW}"),
    "titans_mal": ("model=titans_mal", *MEMORY, f"model.window={WINDOW}", *SLOW),
    "titans_mac": ("model=titans_mac", *MEMORY, f"model.segment={WINDOW}", *SLOW),
}
# numbers of pairs in training
FEWEST, MOST = 4, 16
CAPACITY_MODELS = ("titans_lmm", "hope", "transformer")
DEEP = ("model=titans_deep", *MEMORY)

LONGEST = 40
# s3 and mod5: a first run learns short words
SHORT, SHORT_STEPS = 8, 800
WARMUP = (f"data.max_length={SHORT}", f"steps={SHORT_STEPS}")
# weight decay would disturb counters; the LSTM has its own learning rate, which is too high for the others
NO_DECAY = ("optim.groups.1.weight_decay=0",)
LSTM = ("model=lstm", *(f"optim.groups.{group}.lr=1e-2" for group in range(3)))
# language and model -> overrides
FORMAL: dict[tuple[str, str], tuple[str, ...]] = {
    ("parity", "lstm"): (*LSTM, "steps=800"),
    ("s3", "lstm"): (*LSTM, "steps=1300"),
    ("parity", "hope"): HOPE,
    ("parity", "transformer"): ("model=transformer",),
    ("parity", "linear_attention"): ("model=linear_attention", *MEMORY),
    ("s3", "hope"): (*HOPE, "steps=1300"),
    ("mod5", "lstm"): (*LSTM, "steps=1300"),
    ("mod5", "hope"): (*HOPE, "steps=1300"),
}


@dataclass(frozen=True)
class Evaluation:
    """An evaluation of a trained model: a pack, its overrides with a memory policy, and the names of its `reports`."""

    pack: str
    overrides: tuple[str, ...]
    reports: tuple[str, ...]


@dataclass(frozen=True)
class Trial:
    """A training run for each seed: `model` (a row of the tables) on `case`, and its evaluations.

    warmup: overrides of a run on an easier version of the task, from which this one branches.
    """

    part: str
    case: str
    model: str
    overrides: tuple[str, ...]
    evaluations: tuple[Evaluation, ...]
    warmup: tuple[str, ...] = ()

    def name(self, seed: int) -> str:
        """Return the name of the run; it is always the same, so that the script can resume."""
        return f"{self.part}_{self.case}_{self.model}_{seed}"

    def warmup_name(self, seed: int) -> str:
        """Return the name of the run that this one branches from."""
        return f"course_{self.name(seed)}"


GAPS = Evaluation("recall", ("evals.recall.gaps=[32,128,512]", "evals.recall.pairs=[4,8,16]"), ("recall",))
CHANGED = Evaluation(
    "recall", (f"evals.recall.gaps=[{GAP}]", "evals.recall.changed=[2]", "name=changed"), ("recall_changed",)
)
# controls: no writes while reading, and memorizing, at the training gap and beyond
NEARER = ("evals.recall.gaps=[32,128]",)
FROZEN = Evaluation("recall", (*NEARER, "memory=frozen"), ("recall_frozen",))
MEMORIZED = Evaluation(
    "recall",
    (*NEARER, "memory=memorize", "memory.levels=[titan]", "name=studied"),
    ("recall_studied", "recall_memorize_studied"),
)
CAPACITY = Evaluation("recall", (f"evals.recall.gaps=[{GAP}]", "evals.recall.pairs=[4,8,16,32]"), ("recall",))
FORMAL_WORDS = Evaluation("formal", ("evals.formal.num_rows=512",), ("formal",))


def gap() -> Iterator[Trial]:
    """Yield every model on recall with answers outside the window."""
    for model, overrides in GAP_MODELS.items():
        # a transformer has no memory to freeze or to write
        evaluations = (GAPS, CHANGED, *(() if model.startswith("transformer") else (FROZEN, MEMORIZED)))
        given = ("experiment=recall", f"data.gap={GAP}", f"data.num_pairs={PAIRS}", "val_every=250", "save_every=500")
        yield Trial("gap", "recall", model, (*given, *overrides), evaluations)


def capacity() -> Iterator[Trial]:
    """Yield the models on recall with many pairs."""
    models = {name: GAP_MODELS[name] for name in CAPACITY_MODELS} | {"titans_deep": DEEP}
    given = ("experiment=recall", f"data.min_pairs={FEWEST}", f"data.num_pairs={MOST}", f"data.num_keys={2 * MOST}")
    for model, overrides in models.items():
        yield Trial("capacity", "recall", model, (*given, "val_every=250", "save_every=500", *overrides), (CAPACITY,))


def formal() -> Iterator[Trial]:
    """Yield the models on state tracking, those that should fail included."""
    for (language, model), overrides in FORMAL.items():
        given = ("experiment=formal", f"data.language={language}", f"data.max_length={LONGEST}", "val_every=200")
        warmup = () if language == "parity" else WARMUP
        yield Trial("formal", language, model, (*given, *NO_DECAY, *overrides), (FORMAL_WORDS,), warmup)


PARTS = {"gap": tuple(gap()), "formal": tuple(formal()), "capacity": tuple(capacity())}
# --quick: the whole script in seconds, with meaningless results
QUICK = (
    "steps=2",
    "val_every=2",
    "save_every=2",
    "model.dim=16",
    "model.num_layers=1",
    "model.num_heads=2",
    "data.batch_size=2",
    "data.val_rows=4",
)
