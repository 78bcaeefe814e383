"""The runs of the four parts of this experiment, as overrides of the command line, and the evaluations of each."""

from collections.abc import Iterator
from dataclasses import dataclass

# the chunk changes only the speed of most memories; for hope also how often its generating memories are updated
CHUNK = 16
MODELS: dict[str, tuple[str, ...]] = {
    "lstm": ("model=lstm",),
    "transformer": ("model=transformer",),
    "linear_attention": ("model=linear_attention", f"model.memory.chunk={CHUNK}"),
    "deltanet": ("model=deltanet", f"model.memory.chunk={CHUNK}"),
    "titans_lmm": ("model=titans_lmm", f"model.memory.chunk={CHUNK}"),
    "hope": ("model=hope", f"model.memory.chunk={CHUNK}", f"model.generating_chunk={CHUNK}"),
}


@dataclass(frozen=True)
class Evaluation:
    """A run of `evals=validation` on a trained model: the name of its report, and overrides of the data."""

    name: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Trial:
    """A training run for each seed: `model` (a row of the tables) on `case` (a column)."""

    part: str
    case: str
    model: str
    overrides: tuple[str, ...]
    evaluations: tuple[Evaluation, ...] = ()

    def name(self, seed: int) -> str:
        """Return the name of the run; it is always the same, so that the script can resume."""
        return f"{self.part}_{self.case}_{self.model}_{seed}"


@dataclass(frozen=True)
class Part:
    """One part of the experiment: its trials, its default seeds, and the overrides of `--quick`."""

    trials: tuple[Trial, ...]
    seeds: tuple[int, ...]
    quick: tuple[str, ...]


# --- formal languages: trained on words of up to LONGEST letters, evaluated also on words up to twice as long

# weight decay would disturb counters; the LSTM has its own learning rate, which is too high for the others
NO_DECAY = ("optim.groups.1.weight_decay=0",)
LSTM_RATE = tuple(f"optim.groups.{group}.lr=1e-2" for group in range(3))
# memories that correct their predictions saturate, which may keep HOPE from counting; memories that add do not
ADDING = ("model.memory.objective=dot", "model.memory.rule=gd", "model.memory.retention=none")

LONGEST = 40
LANGUAGES = ("parity", "aa", "abab", "anbn", "anbncn", "shuffle2")
COUNTING = LANGUAGES[3:]
LONGER = Evaluation("longer", (f"data.min_length={LONGEST + 1}", f"data.max_length={2 * LONGEST}"))


def formal() -> Iterator[Trial]:
    """Yield every model on every language, and on those that need counting also a HOPE whose memories add."""
    models = {
        **{model: (*overrides, *(LSTM_RATE if model == "lstm" else ())) for model, overrides in MODELS.items()},
        "hope_adding": (*MODELS["hope"], *ADDING),
    }
    for language in LANGUAGES:
        for model, overrides in models.items():
            if model != "hope_adding" or language in COUNTING:
                given = ("experiment=formal", f"data.language={language}", f"data.max_length={LONGEST}", *NO_DECAY)
                yield Trial("formal", language, model, (*given, *overrides), (LONGER,))


# --- MAD

MAD_TASKS = (
    "compression",
    "in_context_recall",
    "fuzzy_recall",
    "noisy_recall",
    "selective_copying",
    "memorization",
)


def mad() -> Iterator[Trial]:
    """Yield every model on every task."""
    for task in MAD_TASKS:
        for model, overrides in MODELS.items():
            yield Trial("mad", task, model, (f"experiment=mad_{task}", *overrides))


# --- recall: the width of a head sets the size of the state of a layer, WIDTH * width of a head numbers

WIDTH = 64
HEAD_WIDTHS = (8, 16, 32)
PAIRS = (3, 6, 12, 24)


def recall() -> Iterator[Trial]:
    """Yield every model with a matrix memory or a KV cache, with every width of a head."""
    evaluations = tuple(
        Evaluation(f"pairs_{pairs}", ("data.min_pairs=null", f"data.num_pairs={pairs}")) for pairs in PAIRS
    )
    for width in HEAD_WIDTHS:
        for model, overrides in MODELS.items():
            if model != "lstm":
                given = ("experiment=pairs", *overrides, f"model.dim={WIDTH}", f"model.num_heads={WIDTH // width}")
                yield Trial("recall", f"width{width}", model, given, evaluations)


# --- ablation: HOPE without each of its parts

FULL = "hope"
ONE_LEVEL = "model.levels=[{name: mlp, period: 0}]"
ABLATIONS: dict[str, tuple[str, ...]] = {
    FULL: (),
    "without_dgd": ("model.memory.rule=gd",),
    "without_momentum": ("model.memory.momentum=none",),
    "without_weight_decay": ("model.memory.retention=none",),
    # one level as wide as both together
    "without_cms": (ONE_LEVEL, "model.expansion=2.4375"),
    "static_key": ("model.adaptive=[value,gates]",),
    "static_value": ("model.adaptive=[key,gates]",),
    "adaptive_query": ("model.adaptive=[key,value,gates,query]",),
}


def ablation() -> Iterator[Trial]:
    """Yield HOPE as in the paper's ablation, with momentum, and without each part."""
    for model, overrides in ABLATIONS.items():
        momentum = () if model == "without_momentum" else ("model.memory.momentum=gate",)
        yield Trial("ablation", "text", model, ("experiment=ablation", *momentum, *overrides))


PARTS = {
    "formal": Part(tuple(formal()), (0, 1, 2), ("data.max_length=12",)),
    "mad": Part(tuple(mad()), (0, 1), ()),
    "recall": Part(tuple(recall()), (0, 1), ()),
    "ablation": Part(tuple(ablation()), (0, 1, 2), ("data.seq_len=32",)),
}
# --quick: the whole script in minutes, with meaningless results
QUICK = (
    "steps=2",
    "val_every=2",
    "save_every=2",
    "log_every=1",
    "model.dim=16",
    "model.num_layers=1",
    "model.num_heads=2",
    "data.batch_size=2",
    "data.val_rows=4",
)
