"""Benchmark tasks in local JSON-lines files: their names, their files, and the questions in them."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from nested_learning.data.text.json_lines import Item, read_json_lines
from nested_learning.errors import ConfigError, DataError

TASKS = Path(__file__).parent / "tasks"

# the keys of questions, and the types of their values
KINDS = {"query": str, "choices": list, "gold": int, "context_options": list, "continuation": str, "context": str}

# HellaSwag's texts from WikiHow contain marks such as [title]; files that are already cleaned have none
MARKED = ("hellaswag",)
MARK = re.compile(r"\[.*?\]")


@cache
def read_tasks(name: str) -> dict[str, dict[str, Any]]:
    """Return the tasks of the file `tasks/<name>.yaml` of this package, by name."""
    tasks: dict[str, dict[str, Any]] = yaml.safe_load((TASKS / f"{name}.yaml").read_text(encoding="utf-8"))
    return tasks


def find_files(folder: Path, tasks: dict[str, dict[str, Any]], wanted: list[str] | None, key: str) -> dict[str, Path]:
    """Return the file of each of the `wanted` tasks in `folder` or below; None: of all tasks that have a file there.

    `key` is the option that names the folder. Raises ConfigError for an unknown task, DataError where the file of a
    wanted task is missing, or all files are.
    """
    unknown = [name for name in wanted or [] if name not in tasks]
    if unknown:
        raise ConfigError(f"no task {unknown[0]}; there are {', '.join(tasks)}")
    below = {path.name: path for path in sorted(folder.rglob("*.jsonl"), reverse=True)}
    found = {name: [below[file] for file in tasks[name]["files"] if file in below] for name in wanted or tasks}
    missing = [name for name, files in found.items() if not files]
    if missing and (wanted is not None or len(missing) == len(found)):
        raise DataError(f"{key}={folder}: has no {' or '.join(tasks[missing[0]]['files'])}, for the task {missing[0]}")
    return {name: files[0] for name, files in found.items() if files}


def read_items(name: str, path: Path, keys: list[str]) -> list[Item]:
    """Return the questions in a task's file; raise DataError for a line that is not one."""
    items = read_json_lines(path, {key: KINDS[key] for key in keys})
    for number, item in enumerate(items, 1):
        options = [item[key] for key in ("choices", "context_options") if key in keys]
        if options and item["gold"] not in range(len(options[0])):
            raise DataError(f"{path}, question {number}: gold={item['gold']} is not the index of a choice")
    return [unmark(item) for item in items] if name.startswith(MARKED) else items


def unmark(item: Item) -> Item:
    """Remove WikiHow's marks from a question of HellaSwag. Source: lm-evaluation-harness, hellaswag/utils."""

    def clean(text: str) -> str:
        return MARK.sub("", text.strip().replace(" [title]", ". ")).replace("  ", " ")

    return item | {"query": clean(item["query"]), "choices": [clean(choice) for choice in item["choices"]]}
