"""JSON lines: files with one JSON object a line, such as texts, labelled texts, and questions of evaluations."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nested_learning.data.text.documents import CONVERT, as_data_error, to_text
from nested_learning.errors import DataError

Item = dict[str, Any]

ALLOWED = "each line must be one JSON object; of an array, jq -c '.[]' makes such lines"
# how errors call a type; a list is one of texts
WORDS = {str: "text", int: "a whole number", list: "a list of texts"}


def read_json_lines(path: Path, keys: Mapping[str, type], where: str = "") -> list[Item]:
    """Return the objects in the file `path`, each with a value of the given type for each of `keys`.

    A list must be one of texts, and not empty; an object may be any value. `where` names the file in errors; "": its
    path. Raises DataError, with the line, for a file that cannot be read, is empty, or has other contents.
    """
    where = where or str(path)
    with as_data_error(where):
        data = path.read_bytes()
    text = to_text(data)
    if text is None and data.strip():
        raise DataError(f"{where}: is not utf-8 text; {CONVERT}")
    items = []
    for place, line in numbered((text or "").split("\n"), where):
        item = parse_object(line, place)
        _require(keys, item, place)
        items.append(item)
    if not items:
        raise DataError(f"{where}: is empty; it must have one JSON object a line, with {', '.join(keys)}")
    return items


def numbered(lines: Iterable[str], where: str) -> Iterator[tuple[str, str]]:
    """Yield every line that is not blank, after its place in the file, such as "a.jsonl, line 1"."""
    return ((f"{where}, line {number}", line) for number, line in enumerate(lines, 1) if line.strip())


def parse_object(line: str, place: str) -> Item:
    """Return the object in `line`. Raises DataError where there is none."""
    try:
        value = json.loads(line)
    # brackets nested thousands deep end in a RecursionError
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place}: not JSON ({error}); {ALLOWED}") from error
    if not isinstance(value, dict):
        raise DataError(f"{place}: {line.strip()[:40]} is not an object; {ALLOWED}")
    return value


def is_json_lines(text: str) -> bool:
    """Return whether the first two lines of `text` are JSON objects."""
    first = text.lstrip().split("\n", 2)[:2]
    try:
        return len(first) == 2 and all(isinstance(json.loads(line), dict) for line in first)
    except (ValueError, RecursionError):
        return False


def is_unicode(text: str) -> bool:
    """Return whether `text` has no lone surrogate, which stands for bytes that are no text."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _require(keys: Mapping[str, type], item: Item, place: str) -> None:
    missing = [key for key in keys if key not in item]
    if missing:
        raise DataError(f"{place}: has no {', '.join(missing)}; it must be an object with {', '.join(keys)}")
    for key, kind in keys.items():
        if not _is_a(kind, item[key]):
            raise DataError(f"{place}: its {key} must be {WORDS[kind]}, not {json.dumps(item[key])[:40]}; fix the line")
    if not is_unicode(json.dumps(item, ensure_ascii=False)):
        raise DataError(f"{place}: has half a character, such as \\ud800; fix the line, or delete it")


def _is_a(kind: type, value: Any) -> bool:
    if kind is list:
        return isinstance(value, list) and bool(value) and all(isinstance(each, str) for each in value)
    # not isinstance: a truth value would be a number
    return kind is object or type(value) is kind
