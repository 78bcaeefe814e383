"""metrics.jsonl: one JSON object a line, the record that resume, reports and people read."""

import json
import math
from collections.abc import Mapping
from pathlib import Path

from nested_learning.logger.protocol import Value


class JsonlLogger:
    """Appends a line per log to a file, flushed at once: `step`, `tokens`, `split`, then the names. Source: ours."""

    def __init__(self, path: Path, start_step: int = 0) -> None:
        """Open `path` for a run that goes on after `start_step`, 0 being a run that begins.

        Lines of later steps are dropped, and so is a line that a kill cut short: those steps run again and write the
        same figures, so that the trace is that of a run never stopped.
        """
        if start_step == 0:
            path.unlink(missing_ok=True)
        elif path.exists():
            _keep_until(path, start_step)
        self._file = path.open("a", encoding="utf-8")

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        """Write one line; a number that is not finite becomes null, since JSON has no other word for it."""
        first = {"step": step} | {name: values[name] for name in ("tokens", "split") if name in values}
        line = {name: _finite(value) for name, value in (first | dict(values)).items()}
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _finite(value: Value) -> Value | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _keep_until(path: Path, start_step: int) -> None:
    """Drop the lines of `path` after `start_step`, and everything from the first line that is no whole JSON object."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        if not line.endswith("}\n"):
            break
        if json.loads(line)["step"] <= start_step:
            kept.append(line)
    draft = path.with_suffix(".tmp")
    draft.write_text("".join(kept), encoding="utf-8")
    draft.replace(path)
