"""JSON-lines files of questions, checked as they are read."""

import json
from pathlib import Path
from typing import Any

from nested_learning.errors import DataError

Item = dict[str, Any]


def read_json_lines(path: Path, *keys: str) -> list[Item]:
    """Return the objects in the file `path`, each of which has at least `keys`.

    Raises DataError, with the line number, for a file that cannot be read, is empty, or has other contents.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); it should be one JSON object a line, in utf-8") from error
    items = [_parse(path, number, line, keys) for number, line in enumerate(lines, 1) if line.strip()]
    if not items:
        raise DataError(f"{path}: empty; it should be one JSON object a line, with {', '.join(keys)}")
    return items


def _parse(path: Path, number: int, line: str, keys: tuple[str, ...]) -> Item:
    try:
        item = json.loads(line)
    except ValueError as error:
        raise DataError(f"{path}, line {number}: not JSON ({error}); fix the line, or delete it") from error
    missing = list(keys) if not isinstance(item, dict) else [key for key in keys if key not in item]
    if missing:
        raise DataError(f"{path}, line {number}: has no {', '.join(missing)}; it should be an object with them")
    parsed: Item = item
    return parsed
