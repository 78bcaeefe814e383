"""The runs of this experiment, as overrides of the command line, and the evaluations of each."""

from collections.abc import Iterator
from dataclasses import dataclass

# the chunk changes only the speed of most memories; for hope also how often its generating memories are updated
CHUNK = 16
MEMORY = (f"model.memory.chunk={CHUNK}",)
# two layers of this window see 2 x (16 - 1) = 30 tokens back, fewer than the gap of 32
WINDOW, GAP, PAIRS = 16, 32, 4
HOPE = ("model=hope", *MEMORY, f"model.generating_chunk={CHUNK}")

# of these accuracy stays for longer where the values are known and not which belongs to which key
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
# how many pairs rows are trained with, and asked about
FEWEST, MOST = 4, 16
CAPACITY_MODELS = ("titans_lmm", "hope", "transformer")
DEEP = ("model=titans_deep", *MEMORY)

LONGEST = 40
# words of a group are learned short ones first
SHORT, SHORT_STEPS = 8, 800
COURSE = (f"data.max_length={SHORT}", f"steps={SHORT_STEPS}")
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
    """What a trained model is asked: a pack with its overrides, under a memory policy; `answers` are its reports."""

    pack: str
    overrides: tuple[str, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Trial:
    """One thing to train, once for each seed: `model` (a row of the tables) at `case`, and what it is asked.

    `course`: the overrides of a run that it begins with, which learns an easier version first.
    """

    part: str
    case: str
    model: str
    overrides: tuple[str, ...]
    evaluations: tuple[Evaluation, ...]
    course: tuple[str, ...] = ()

    def name(self, seed: int) -> str:
        """Return the name of the run; it is always the same, so that the script can resume."""
        return f"{self.part}_{self.case}_{self.model}_{seed}"

    def course_name(self, seed: int) -> str:
        """Name the run that this one begins with."""
        return f"course_{self.name(seed)}"


GAPS = Evaluation("recall", ("evals.recall.gaps=[32,128,512]", "evals.recall.pairs=[4,8,16]"), ("recall",))
CHANGED = Evaluation(
    "recall", (f"evals.recall.gaps=[{GAP}]", "evals.recall.changed=[2]", "name=changed"), ("recall_changed",)
)
# with and without the writes, of reading or of study, at what was trained and farther
NEARER = ("evals.recall.gaps=[32,128]",)
FROZEN = Evaluation("recall", (*NEARER, "memory=frozen"), ("recall_frozen",))
STUDIED = Evaluation(
    "recall",
    (*NEARER, "memory=memorize", "memory.levels=[titan]", "name=studied"),
    ("recall_studied", "recall_memorize_studied"),
)
CAPACITY = Evaluation("recall", (f"evals.recall.gaps=[{GAP}]", "evals.recall.pairs=[4,8,16,32]"), ("recall",))
FORMAL_WORDS = Evaluation("formal", ("evals.formal.num_rows=512",), ("formal",))


def gap() -> Iterator[Trial]:
    """Yield every model on answers that lie outside the window."""
    for model, overrides in GAP_MODELS.items():
        # a transformer has no memory that could be frozen or studied
        evaluations = (GAPS, CHANGED, *(() if model.startswith("transformer") else (FROZEN, STUDIED)))
        given = ("experiment=recall", f"data.gap={GAP}", f"data.num_pairs={PAIRS}", "val_every=250", "save_every=500")
        yield Trial("gap", "recall", model, (*given, *overrides), evaluations)


def capacity() -> Iterator[Trial]:
    """Yield the models that are asked how many pairs they hold."""
    models = {name: GAP_MODELS[name] for name in CAPACITY_MODELS} | {"titans_deep": DEEP}
    given = ("experiment=recall", f"data.min_pairs={FEWEST}", f"data.num_pairs={MOST}", f"data.num_keys={2 * MOST}")
    for model, overrides in models.items():
        yield Trial("capacity", "recall", model, (*given, "val_every=250", "save_every=500", *overrides), (CAPACITY,))


def formal() -> Iterator[Trial]:
    """Yield what tracks a state, or should not be able to."""
    for (language, model), overrides in FORMAL.items():
        given = ("experiment=formal", f"data.language={language}", f"data.max_length={LONGEST}", "val_every=200")
        course = () if language == "parity" else COURSE
        yield Trial("formal", language, model, (*given, *NO_DECAY, *overrides), (FORMAL_WORDS,), course)


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
