"""metrics.jsonl: one JSON object per line."""

import json
import math
from collections.abc import Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from nested_learning.logger.protocol import Value


class JsonlLogger:
    """Appends a line per log to a file, flushed at once: `step`, `tokens`, `split`, then the names."""

    def __init__(self, path: Path, start_step: int = 0) -> None:
        """Open `path` for a run that continues after `start_step`, 0 for a new one.

        Lines of later steps are dropped, and so is a line that a kill cut short: those steps run again and write the
        same metrics, so that the file equals that of a run never stopped.
        """
        if start_step == 0:
            path.unlink(missing_ok=True)
        elif path.exists():
            _keep_until(path, start_step)
        self._path = path
        self._file = path.open("a", encoding="utf-8")

    def log(self, step: int, values: Mapping[str, Value]) -> None:
        """Write one line; a number that is not finite becomes null, since JSON has no such number."""
        first = {"step": step} | {name: values[name] for name in ("tokens", "split") if name in values}
        line = {name: _finite(value) for name, value in (first | dict(values)).items()}
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()

    def rewind(self, step: int) -> None:
        """Drop the lines after `step`."""
        self._file.close()
        _keep_until(self._path, step)
        self._file = self._path.open("a", encoding="utf-8")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a file of `JsonlLogger`, without a last one that a kill cut short.

    Without a file there are none.
    """
    if not path.exists():
        return []
    return [json.loads(line) for line in _whole_lines(path)]


def _finite(value: Value) -> Value | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _keep_until(path: Path, start_step: int) -> None:
    """Drop the lines of `path` after `start_step`, and everything from the first line that is no whole JSON object."""
    kept = [line for line in _whole_lines(path) if json.loads(line)["step"] <= start_step]
    draft = path.with_suffix(".tmp")
    draft.write_text("".join(kept), encoding="utf-8")
    draft.replace(path)


def _whole_lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return list(takewhile(lambda line: line.endswith("}\n"), lines))
