"""`incident.md`: what a person needs to know about a step that was not finite."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from nested_learning.data.batch import Batch
from nested_learning.data.tokenizers.tokenizer import Tokenizer
from nested_learning.files import write_atomic
from nested_learning.train.divergence.watch import Findings

FILE = "incident.md"
# of a batch its worst rows, and so much of each
ROWS, LETTERS, TOKENS = 3, 2000, 256


class Incident(NamedTuple):
    """A step that was not finite: all that `incident.md` says of it.

    `norms`: of each parameter its own norm and that of its gradient; `found`: by the second reading; `rows`: nats of
    each row of the global batch; `before`: the figures of the step before; `done`: in one sentence; `command`: how a
    run that stopped goes on, "" when it did not stop.
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
        """What this looks like, in one word: weights, transient, rows, forward or backward."""
        if any(not math.isfinite(weight) for weight, _ in self.norms.values()):
            return "weights"
        if self.found.first is None:
            return "transient"
        broken = sum(not math.isfinite(nats) for nats in self.rows)
        if 0 < broken <= len(self.rows) // 2:
            return "rows"
        return "backward" if self.found.first.is_backward else "forward"


# kind -> what it means, and what a person can do
LOOKS_LIKE = {
    "weights": (
        "The weights were not finite before the batch was read: the update before broke them. Its learning rate was "
        "too high for its gradient, or the machine is at fault.",
        "lower the learning rate (optim.groups.<n>.lr), clip more (optim.clip), warm up longer (optim.schedule.warmup)",
    ),
    "transient": (
        "The same batch read again with the same weights is finite: the numbers were broken on the way. That is no "
        "matter of learning rates.",
        "if it happens again on this machine, suspect its memory or accelerator; on others, a kernel (backend=eager)",
    ),
    "rows": (
        "Some rows are not finite, the others are: it is what is in these rows.",
        "read the rows below, and where they are damaged prepare the data anew",
    ),
    "forward": (
        "The batch is not finite in the forward pass: activations grew until an operation overflowed, or one was given "
        "what it cannot take, such as the logarithm of 0.",
        "look for the layer below whose weights or activations stand out; lower the learning rate of its group, or "
        "compute in dtype=float32",
    ),
    "backward": (
        "The loss is finite and its gradient is not: an operation of the backward pass overflowed, or has no gradient "
        "where it was, such as a root at 0.",
        "look at the operation above and at what its module is given",
    ),
}


def worst_rows(nats: Sequence[float]) -> list[int]:
    """Return the rows to look at: what is not finite first, then by what they cost."""
    return sorted(range(len(nats)), key=lambda row: (math.isfinite(nats[row]), -nats[row]))[:ROWS]


def write_incident(run: Path, incident: Incident, batch: Mapping[int, Batch], tokenizer: Tokenizer | None) -> Path:
    """Add `incident` to the page in the directory `run`; `batch` are its worst rows, one each, by number."""
    path = run / FILE
    before = path.read_text(encoding="utf-8") if path.exists() else f"# Incidents of {run.name}\n"
    write_atomic(path, f"{before}\n{render(incident, batch, tokenizer)}")
    return path


def render(incident: Incident, batch: Mapping[int, Batch], tokenizer: Tokenizer | None) -> str:
    """Write one section of the page: what happened, what it looks like, what to do, the rows, the norms."""
    meaning, remedy = LOOKS_LIKE[incident.kind]
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
        "First operation that was not finite, when the batch was read again:",
        "",
        f"- {first or 'none'}",
        *(f"- then {origin}" for origin in incident.found.origins if origin != first),
        "",
        "### What to do next",
        "",
        f"- {remedy}",
    ]
    if incident.command:
        lines.append(f"- or go back to the last checkpoint and leave such steps out: `{incident.command}`")
    lines += ["", "### The batch", "", f"The worst of its {len(incident.rows)} rows:"]
    for row, piece in batch.items():
        lines += ["", f"Row {row}, {incident.rows[row]:.4g} nats:", "", *_quoted(piece, tokenizer)]
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
    """Return the text of a row, or its tokens and targets where they are no text, as an indented block."""
    if tokenizer is None:
        tokens, targets = row.tokens[0, :TOKENS].tolist(), row.targets[0, :TOKENS].tolist()
        return [f"    tokens {tokens}", f"    targets {targets}"]
    text = tokenizer.decode(row.tokens[0].tolist())[:LETTERS]
    plain = "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in text)
    return [f"    {line}" for line in plain.split("\n")]
