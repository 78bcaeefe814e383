"""`incident.md`: the report on a step that was not finite."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from nested_learning.data.batch import Batch
from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.files import write_atomic
from nested_learning.train.divergence.diagnosis import Findings

FILE = "incident.md"
# how many of the worst rows are shown, and how much of each
MAX_ROWS, MAX_CHARACTERS, MAX_TOKENS = 3, 2000, 256


class Incident(NamedTuple):
    """A step that was not finite, as `incident.md` reports it.

    `norms`: of each parameter its norm and that of its gradient; `found`: what the second computation showed; `rows`:
    loss in nats of each row of the global batch; `before`: the metrics of the step before; `done`: the action taken, a
    sentence; `command`: resumes a run that stopped, "" when it did not stop.
    """

    step: int
    loss: float
    norm: float
    norms: Mapping[str, tuple[float, float]]
    found: Findings
    rows: Sequence[float]
    before: Mapping[str, float]
    done: str
    command: str

    @property
    def kind(self) -> str:
        """The likely cause: weights, transient, rows, forward or backward."""
        if any(not math.isfinite(weight) for weight, _ in self.norms.values()):
            return "weights"
        if self.found.first is None:
            return "transient"
        broken = sum(not math.isfinite(nats) for nats in self.rows)
        if 0 < broken <= len(self.rows) // 2:
            return "rows"
        return "backward" if self.found.first.is_backward else "forward"


# kind -> what it means, and what to do
CAUSES = {
    "weights": (
        "The weights were not finite before this step: the previous update broke them. Its learning rate was too high "
        "for its gradient, or the machine is at fault.",
        "lower the learning rate (optim.groups.<n>.lr), clip more (optim.clip), warm up longer (optim.schedule.warmup)",
    ),
    "transient": (
        "The same batch with the same weights is finite when computed again: neither data nor learning rates are the "
        "cause.",
        "if it happens again on this machine, suspect its memory or accelerator; on others, a kernel (backend=eager)",
    ),
    "rows": (
        "Some rows are not finite, the others are: the cause is the content of these rows.",
        "read the rows below, and where they are damaged prepare the data again",
    ),
    "forward": (
        "The forward pass is not finite: activations grew until an operation overflowed, or an operation got an input "
        "outside of its domain, such as the logarithm of 0.",
        "look for the layer below whose weights or activations stand out; lower the learning rate of its group, or "
        "compute in dtype=float32",
    ),
    "backward": (
        "The loss is finite and its gradient is not: an operation of the backward pass overflowed, or has no gradient "
        "at its input, such as a square root at 0.",
        "look at the operation above and at the inputs of its module",
    ),
}


def worst_rows(nats: Sequence[float]) -> list[int]:
    """Return the numbers of the worst rows: those that are not finite first, then by descending loss."""
    return sorted(range(len(nats)), key=lambda row: (math.isfinite(nats[row]), -nats[row]))[:MAX_ROWS]


def write_incident(run: Path, incident: Incident, batch: Mapping[int, Batch], tokenizer: Tokenizer | None) -> Path:
    """Append `incident` to incident.md in the directory `run`; `batch` holds its worst rows by number."""
    path = run / FILE
    before = path.read_text(encoding="utf-8") if path.exists() else f"# Incidents of {run.name}\n"
    write_atomic(path, f"{before}\n{render(incident, batch, tokenizer)}")
    return path


def render(incident: Incident, batch: Mapping[int, Batch], tokenizer: Tokenizer | None) -> str:
    """Return one section of the report: what happened, the likely cause, what to do, the rows, the norms."""
    meaning, remedy = CAUSES[incident.kind]
    first = incident.found.first
    before = "".join(f", {name} {value:.4g}" for name, value in incident.before.items())
    lines = [
        f"## Step {incident.step}",
        "",
        f"Loss {incident.loss:.4g}, gradient norm {incident.norm:.4g}: {incident.done}.",
        *([f"The step before had{before[1:]}."] if before else []),
        "",
        f"**It looks like: {incident.kind}.** {meaning}",
        "",
        "First operation that was not finite, when the step was computed again:",
        "",
        f"- {first or 'none'}",
        *(f"- then {origin}" for origin in incident.found.origins if origin != first),
        "",
        "### What to do next",
        "",
        f"- {remedy}",
    ]
    if incident.command:
        lines.append(f"- or return to the last checkpoint and skip such steps: `{incident.command}`")
    lines += ["", "### The batch", "", f"The worst of its {len(incident.rows)} rows:"]
    for number, row in batch.items():
        lines += ["", f"Row {number}, {incident.rows[number]:.4g} nats:", "", *_quoted(row, tokenizer)]
    return "\n".join([*lines, "", *_table(incident)]) + "\n"


def _table(incident: Incident) -> list[str]:
    activations = incident.found.activations
    lines = ["### Norms by layer", "", "| part | weights | gradient | activations |", "| --- | --- | --- | --- |"]
    for name, (weight, gradient) in incident.norms.items():
        owner = name.rpartition(".")[0]
        activation = f"{activations[owner]:.4g}" if owner in activations else ""
        lines.append(f"| `{name}` | {weight:.4g} | {gradient:.4g} | {activation} |")
    return lines


def _quoted(row: Batch, tokenizer: Tokenizer | None) -> list[str]:
    """Return a row as an indented block: its text, or its tokens and targets where there is no tokenizer."""
    if tokenizer is None:
        tokens, targets = row.tokens[0, :MAX_TOKENS].tolist(), row.targets[0, :MAX_TOKENS].tolist()
        return [f"    tokens {tokens}", f"    targets {targets}"]
    text = tokenizer.decode(row.tokens[0].tolist())[:MAX_CHARACTERS]
    plain = "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in text)
    return [f"    {line}" for line in plain.split("\n")]
