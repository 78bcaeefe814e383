"""bAbI: short stories of facts and questions about them. Source: Weston et al., arXiv 1502.05698, format of v1.2."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nested_learning.errors import DataError

# the tasks of BABILong's main tables
TASKS = ("qa1", "qa2", "qa3", "qa4", "qa5")
FORMAT = "it should be of bAbI: lines '1 Mary moved to the bathroom.' and '2 Where is Mary?<tab>bathroom<tab>1'"


class Story(NamedTuple):
    """The `facts` told until a `question` is asked, and its answer, `target`."""

    facts: tuple[str, ...]
    question: str
    target: str


def find_task(folder: Path, task: str, option: str) -> Path:
    """Return the file of a task such as qa1 in `folder`, a test set where there is one; `option` is for errors.

    Raises DataError where there is none.
    """
    found = [folder] if folder.is_file() else sorted(folder.glob(f"{task}_*.txt"))
    if not found:
        raise DataError(f"{option}={folder}: no {task}_*.txt there; give the folder of bAbI's tasks, such as en-10k")
    return next((path for path in found if path.stem.endswith("_test")), found[0])


def read_stories(path: Path) -> list[Story]:
    """Return a story for each question of the file `path`. Raises DataError, with the line, for what is no bAbI."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); {FORMAT}") from error
    stories: list[Story] = []
    facts: tuple[str, ...] = ()
    for place, line in enumerate(lines, start=1):
        number, _, text = line.partition(" ")
        if not number.isdecimal() or not text.strip():
            raise DataError(f"{path}, line {place}: {line[:40]!r} is no fact and no question; {FORMAT}")
        if number == "1":
            facts = ()
        question, *rest = (part.strip() for part in text.split("\t"))
        if not rest:
            facts = (*facts, question)
        elif not rest[0] or not facts:
            raise DataError(f"{path}, line {place}: a question without an answer or a fact; {FORMAT}")
        else:
            stories.append(Story(facts, question, rest[0]))
    if not stories:
        raise DataError(f"{path}: no question there; {FORMAT}")
    return stories


def split_stories(stories: Sequence[Story], held_out: float) -> tuple[list[Story], list[Story]]:
    """Return the stories to train on, and the last share `held_out` of them, those left out that are in both."""
    cut = round((1 - held_out) * len(stories))
    known = set(stories[:cut])
    return list(stories[:cut]), [story for story in stories[cut:] if story not in known]
