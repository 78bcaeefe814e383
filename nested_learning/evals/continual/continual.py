"""`evals=continual`: forgetting in the weights over domains that were learned one after the other."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from nested_learning import checkpoint
from nested_learning.data.combined import CombinedSource
from nested_learning.data.sequence import SequenceConfig
from nested_learning.errors import CheckpointError, ConfigError
from nested_learning.evals.continual.forgetting import (
    AXIS,
    Lines,
    Matrix,
    forgetting_curves,
    forgetting_grid,
    forgetting_metrics,
)
from nested_learning.evals.continual.weights import Weights, all_levels, count_updates, drift
from nested_learning.evals.metrics import Metric, Samples
from nested_learning.evals.protocol import EvalContext, Record, Report
from nested_learning.evals.reading import RowToRead, ValidationRows, loss_metrics, read_rows
from nested_learning.inference.session import Session


class CheckpointRow(NamedTuple):
    """A validation row of `domain`, to be read with the weights of the checkpoint `directory`.

    `stage` is the number of domains that were learned by then.
    """

    stage: int
    domain: str
    row: RowToRead
    directory: Path
    weights: Weights


class Continual:
    """Reads validation rows of every domain of `data=sequence` with the weights after each domain, kept in the run.

    Reports bits per byte of all of them and the metrics of `forgetting_metrics`; for each level of the model also how
    far its weights moved, `drift/<level>`, and how often it was updated, `updates/<level>`. `num_rows` rows of each
    domain are read, `batch_size` at once, each from an empty state (with `resets`, each document of a row).
    """

    reads_text = False

    def __init__(self, num_rows: int, batch_size: int, *, resets: bool) -> None:
        self.num_rows, self.batch_size, self.resets = num_rows, batch_size, resets

    def examples(self, ctx: EvalContext) -> list[CheckpointRow]:
        """Return the rows of all stages, in the order in which domains were learned.

        Raises ConfigError for data that is not a sequence and for memory.reset=carry, CheckpointError where checkpoints
        were not kept.
        """
        if ctx.policy.carries:
            raise ConfigError(
                "evals=continual: rows are read with weights of different checkpoints, which share no memory; "
                "use memory.reset=per_example, or evals=continual_memory"
            )
        source, weights = open_domains(ctx, "continual"), Weights(ctx.model, ctx.weights)
        rows = {name: ValidationRows(part, self.num_rows) for name, part in source.sources.items()}
        return [
            CheckpointRow(stage, name, row, directory, weights)
            for stage, directory in enumerate(stages(ctx, list(rows)))
            for name, of_domain in rows.items()
            for row in of_domain
        ]

    def answer(self, session: Session, examples: Sequence[CheckpointRow]) -> list[list[Record]]:
        """Return the sums over each row."""
        answers: list[list[Record]] = []
        for directory, group in groupby(examples, lambda question: question.directory):
            here = list(group)
            reader = Session(here[0].weights.at(directory), batch=len(here), policy=session.policy)
            readings, written = read_rows(reader, [question.row for question in here], resets=self.resets)
            answers += [
                [
                    {"stage": question.stage, "domain": question.domain, "row": question.row.number}
                    | reading.sums(0, len(reading.nats))
                    | each
                ]
                for question, reading, each in zip(here, readings, written, strict=True)
            ]
        return answers

    def summarise(self, ctx: EvalContext, records: Sequence[Record]) -> Report:
        """Return the metrics of the matrix and of the levels."""
        names = list(dict.fromkeys(record["domain"] for record in records))
        matrix = matrix_of(names, records)
        found = forgetting_metrics(names, matrix, paired=False)
        steps = stages(ctx, names)
        moved, updates = drift(ctx.model, steps), count_updates(all_levels(ctx.model), steps[-1])
        found |= {f"drift/{name}": Metric(far[-1], None, 1, "neither") for name, far in moved.items()}
        found |= {f"updates/{name}": Metric(float(count), None, 1, "neither") for name, count in updates.items()}
        ways: Lines = {
            name: [(float(stage), one, None) for stage, one in enumerate(far)] for name, far in moved.items()
        }
        curves = forgetting_curves(names, matrix) | {"drift": ways}
        grids = {"bits per byte": forgetting_grid(names, matrix)}
        return Report(samples=found, records=list(records), curves=curves, axis=AXIS, grids=grids)


def open_domains(ctx: EvalContext, pack: str) -> CombinedSource:
    """Open the domains of the data. Raises ConfigError for data that is not a sequence of domains."""
    source = ctx.open_source()
    if not isinstance(ctx.data, SequenceConfig) or not isinstance(source, CombinedSource):
        raise ConfigError(
            f"evals={pack}: data={ctx.data.name} is not a sequence of domains; use a run that was trained with "
            "data=sequence, such as experiment=domain_sequence"
        )
    return source


def stages(ctx: EvalContext, names: Sequence[str]) -> list[Path]:
    """Return the checkpoints before the first domain and after each. Raises CheckpointError for a missing one."""
    assert isinstance(ctx.data, SequenceConfig), "open_domains has checked the data"
    each = ctx.data.steps_each
    found = [ctx.run / checkpoint.FOLDER / f"step_{stage * each:08d}" for stage in range(len(names) + 1)]
    for stage, directory in enumerate(found):
        if not directory.is_dir():
            when = f"after {names[stage - 1]}" if stage else "before the first domain"
            raise CheckpointError(
                f"{directory}: no checkpoint {when}; train the run to steps={len(names) * each} with keep_every={each}"
            )
    require_same(checkpoint.read_config(found[0])["data"], ctx.data)
    return found


def require_same(trained: dict[str, Any], data: SequenceConfig) -> None:
    """Raise ConfigError unless the order of domains and the steps of each are those of training."""
    for key in ("name", "order", "steps_each", "segments"):
        if trained[key] != vars(data)[key]:
            raise ConfigError(
                f"evals=continual: data.{key}={vars(data)[key]}, but the run was trained with "
                f"data.{key}={trained[key]}; leave it out, the checkpoint brings it"
            )


def matrix_of(names: Sequence[str], records: Sequence[Record]) -> Matrix:
    """Return the bits per byte of each domain after each stage; each record is a sample."""
    cells: dict[tuple[int, str], list[Record]] = {}
    for record in records:
        cells.setdefault((record["stage"], record["domain"]), []).append(record)
    found: dict[tuple[int, int], Samples] = {}
    for (stage, name), cell in cells.items():
        found[stage, names.index(name)] = loss_metrics(cell)["bpb"]
    return found
