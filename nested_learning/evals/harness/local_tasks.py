"""Benchmark tasks in local JSON-lines files: their names, their files, and the questions in them."""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from nested_learning.data.text.json_lines import Item, read_json_lines
from nested_learning.errors import ConfigError, DataError
from nested_learning.typed import convert

Task = dict[str, Any]

TASKS = Path(__file__).parent / "tasks"
OWN = "a file of tasks has for each name `files: [questions.jsonl]` and the other settings; docs/how-to.md shows one"

# the keys of questions, and the types of their values
KINDS = {"query": str, "choices": list, "gold": int, "context_options": list, "continuation": str, "context": str}

# HellaSwag's texts from WikiHow contain marks such as [title]; files that are already cleaned have none
MARKED = ("hellaswag",)
MARK = re.compile(r"\[.*?\]")


@cache
def read_tasks(pack: str) -> dict[str, Task]:
    """Return the tasks of the file `tasks/<pack>.yaml` of this package, by name."""
    tasks: dict[str, Task] = yaml.safe_load((TASKS / f"{pack}.yaml").read_text(encoding="utf-8"))
    return tasks


def choose_tasks(pack: str, wanted: list[str] | None) -> dict[str, Task]:
    """Return the `wanted` tasks, by name; None: all of this package.

    A word that ends in .yaml is the path of a file of tasks, in the form of `tasks/<pack>.yaml`: all of it is wanted.
    Raises ConfigError for a task that is not known, or known twice, DataError for a file that cannot be read.
    """
    known = read_tasks(pack)
    if wanted is None:
        return known
    option = f"evals.{pack}.tasks"
    chosen: dict[str, Task] = {}
    for word in wanted:
        found = _read_own(Path(word).expanduser(), f"{option}={word}") if _is_path(word) else {word: known.get(word)}
        for name, task in found.items():
            if task is None:
                raise ConfigError(
                    f"{option}: no task {name}; there are {', '.join(known)}, or a path such as mine.yaml"
                )
            if name in chosen or (name in known and _is_path(word)):
                raise ConfigError(f"{option}={word}: there is another task {name}; give it another name")
            chosen[name] = task
    return chosen


def _is_path(word: str) -> bool:
    return word.endswith((".yaml", ".yml"))


def _read_own(path: Path, where: str) -> dict[str, Task]:
    """Return the tasks of the file `path`. Their files of questions are looked for in its folder too."""
    try:
        tasks = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{where}: cannot be read ({error}); {OWN}") from error
    if not isinstance(tasks, dict) or not tasks:
        raise DataError(f"{where}: has no tasks; {OWN}")
    for name, task in tasks.items():
        if not isinstance(name, str) or not isinstance(task, dict):
            raise DataError(f"{where}: {name} is not a task by its name; {OWN}")
        convert(task.get("files"), list[str], f"{where}: {name}.files")
        task["folder"] = str(path.parent)
    return tasks


def find_files(folder: Path | None, tasks: Mapping[str, Task], key: str, *, all_needed: bool) -> dict[str, Path]:
    """Return the file of questions of each of the `tasks`, in the folder of the task's own file or below `folder`.

    `key` is the option that names `folder`. Raises DataError where the file of a task is missing; unless `all_needed`,
    only where all are.
    """
    below = {} if folder is None else {path.name: path for path in sorted(folder.rglob("*.jsonl"), reverse=True)}
    found = {}
    for name, task in tasks.items():
        beside = {file: Path(task["folder"], file) for file in task["files"]} if "folder" in task else {}
        places = below | {file: path for file, path in beside.items() if path.is_file()}
        found[name] = [places[file] for file in task["files"] if file in places]
    missing = [name for name, files in found.items() if not files]
    if missing and (all_needed or len(missing) == len(found)):
        raise DataError(f"{key}={folder}: has no {' or '.join(tasks[missing[0]]['files'])}, for the task {missing[0]}")
    return {name: files[0] for name, files in found.items() if files}


def read_items(name: str, path: Path, keys: list[str]) -> list[Item]:
    """Return the questions in a task's file; raise DataError for a line that is not one."""
    items = read_json_lines(path, {key: KINDS.get(key, object) for key in keys})
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
