"""`evals=recall`: associative recall over longer gaps, with more pairs, and with values that change later."""

from collections.abc import Mapping, Sequence

import torch

from nested_learning.data.batch import IGNORE
from nested_learning.data.tasks.recall import RecallConfig
from nested_learning.errors import ConfigError
from nested_learning.evals.config import require_data
from nested_learning.evals.metrics import Metric, Samples
from nested_learning.evals.protocol import EvalContext, Panels, Record, Report
from nested_learning.evals.synthetic.cases import Case, by_version, draw_cases, marks, read_answers, stack
from nested_learning.inference.session import Session
from nested_learning.shapes import Int, Tensor


class Recall:
    """Multi-query associative recall (Zoology, arXiv 2312.04927) across a gap: `num_rows` rows of each version.

    A version is one of `gaps`, a number of `pairs`, and a number of `changed` keys; None is the trained value. Metrics:
    `accuracy/<gap>/<pairs>`; with changed keys `accuracy/<gap>/<pairs>+<changed>`, `changed`, the accuracy at changed
    keys, and `stale`, how often their first value is predicted. Under memory=memorize the pairs and the gap are
    memorized, and the queries begin a new document; `accuracy_wrong_context/...` is the control where the pairs of
    another row were memorized.
    """

    reads_text = False

    def __init__(
        self, gaps: list[int] | None, pairs: list[int] | None, changed: list[int], num_rows: int, batch_size: int
    ) -> None:
        self.gaps, self.pairs, self.changed = gaps, pairs, changed
        self.num_rows, self.batch_size = num_rows, batch_size

    def examples(self, ctx: EvalContext) -> list[Case]:
        """Return the rows. Raises ConfigError for other data, and for more pairs than keys."""
        data = require_data(ctx.data, RecallConfig, "recall", "recall")
        every = self.pairs or [data.num_pairs]
        if max(every) > data.num_keys:
            raise ConfigError(
                f"evals.recall.pairs={every}: the checkpoint was trained with data.num_keys={data.num_keys}; "
                f"use at most {data.num_keys}"
            )
        cells = [
            (gap, pairs, changed)
            for gap in self.gaps or [data.gap]
            for pairs in every
            for changed in self.changed
            if changed <= pairs
        ]
        return [case for cell in cells for case in self._draw(ctx, *cell)]

    def _draw(self, ctx: EvalContext, gap: int, pairs: int, changed: int) -> list[Case]:
        about = {"gap": gap, "pairs": pairs, "changed": changed}
        sizes = {"gap": gap, "num_pairs": pairs, "num_changed": changed}
        return draw_cases(ctx, about, self.num_rows, **sizes, min_pairs=None, num_queries=None)

    def answer(self, session: Session, examples: Sequence[Case]) -> list[list[Record]]:
        """Return for each row which of its queries were answered correctly."""
        return [[row] for row in by_version(session, examples, answer_recall)]

    def summarise(self, ctx: EvalContext, records: Sequence[Record]) -> Report:
        """Return the metrics of every version."""
        assert isinstance(ctx.data, RecallConfig)
        chance = 1 / ctx.data.num_values
        metrics: dict[str, Samples | Metric] = {}
        for cell in dict.fromkeys(map(cell_of, records)):
            here = [record for record in records if cell_of(record) == cell]
            metrics |= {f"{name}/{label(*cell)}": each for name, each in metrics_of(here, chance).items()}
        return Report(samples=metrics, records=list(records), curves=gap_curves(metrics), axis="gap, tokens of noise")


def cell_of(row: Record) -> tuple[int, int, int]:
    """Return the version: the gap, the number of pairs, the number of changed keys."""
    return row["gap"], row["pairs"], row["changed"]


def label(gap: int, pairs: int, changed: int) -> str:
    """Return the name of a version in metrics."""
    return f"{gap}/{pairs}+{changed}" if changed else f"{gap}/{pairs}"


def answer_recall(session: Session, cases: list[Case]) -> list[Record]:
    """Return a record of each of `cases`, which are of one version."""
    batch, other = stack([case.row for case in cases]), stack([case.other for case in cases])
    # the position of the first query
    begin = int((batch.targets[0] != IGNORE).nonzero()[0])
    targets = batch.targets[:, begin:]
    records: list[Record] = [{"row": case.number} | case.about for case in cases]
    if session.memorizes:
        wrong = session.fork()
        wrong.memorize(other.tokens[:, :begin])
        for record, each, wanted in zip(records, read_answers(wrong, batch.tokens[:, begin:]), targets, strict=True):
            record["correct_wrong_context"] = marks(each, wanted)
        written = session.memorize(batch.tokens[:, :begin]).records()
        answers = read_answers(session, batch.tokens[:, begin:])
    else:
        answers, written = read_answers(session, batch.tokens)[:, begin:], [{} for _ in records]
    for place, record in enumerate(records):
        record["correct"] = marks(answers[place], targets[place])
        if record["changed"]:
            first = first_values(batch.tokens[place], begin - record["gap"], targets[place])
            changed = first != targets[place][::2]
            record["was_changed"] = changed.int().tolist()
            record["stale"] = (changed & (answers[place][::2] == first)).int().tolist()
        record |= written[place]
    return records


def first_values(tokens: Int[Tensor, " t"], end: int, targets: Int[Tensor, " n"]) -> Int[Tensor, " q"]:
    """Return the first value of each key that is queried at the end of `tokens`; the pairs end before `end`."""
    value_of: dict[int, int] = {}
    for key, value in tokens[:end].view(-1, 2).tolist():
        value_of.setdefault(key, value)
    return torch.tensor([value_of[key] for key in tokens[-len(targets) :: 2].tolist()])


def metrics_of(records: Sequence[Record], chance: float) -> dict[str, Samples]:
    """Return the metrics of the records of one version."""
    names = {"accuracy": "correct", "accuracy_wrong_context": "correct_wrong_context"}
    found = {
        name: Samples(
            [sum(record[key]) for record in records], [len(record[key]) for record in records], "higher", chance
        )
        for name, key in names.items()
        if key in records[0]
    }
    if "was_changed" in records[0]:
        num_changed = [sum(record["was_changed"]) for record in records]
        right = [
            sum(a * b for a, b in zip(record["correct"], record["was_changed"], strict=True)) for record in records
        ]
        found["changed"] = Samples(right, num_changed, "higher", chance)
        found["stale"] = Samples([sum(record["stale"]) for record in records], num_changed, "lower", chance)
    return found


def gap_curves(metrics: Mapping[str, Samples | Metric]) -> Panels:
    """Return curves over the gap, a panel for each metric and a line for each number of pairs."""
    panels: Panels = {}
    for name, each in metrics.items():
        kind, gap, pairs = name.split("/")
        metric = each.metric() if isinstance(each, Samples) else each
        panels.setdefault(kind, {}).setdefault(f"{pairs} pairs", []).append((float(gap), metric.value, metric.stderr))
    return panels
