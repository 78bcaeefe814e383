"""bAbI: short stories of facts, and questions about them. Source: Weston et al., arXiv 1502.05698, format of v1.2."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nested_learning.data.text.documents import as_data_error, to_text
from nested_learning.errors import DataError

# the tasks of BABILong's main tables
TASKS = ("qa1", "qa2", "qa3", "qa4", "qa5")
FORMAT = "a bAbI file has lines '1 Mary moved to the bathroom.' and '2 Where is Mary?<tab>bathroom<tab>1'"


class Story(NamedTuple):
    """The `facts` before a `question`, the question, and its answer, `target`."""

    facts: tuple[str, ...]
    question: str
    target: str


def find_task(folder: Path, task: str, option: str) -> Path:
    """Return the file of a task such as qa1 in `folder`, preferring its test set. `option`: its name in errors.

    Raises DataError where there is none.
    """
    folder = folder.expanduser()
    named = folder.name.partition("_")[0]
    if folder.is_file() and named in TASKS and named != task:
        raise DataError(f"{option}={folder}: is a file of {named}, and {task} is wanted; give the folder of both")
    paths = [folder] if folder.is_file() else sorted(folder.glob(f"{task}_*.txt"))
    if not paths:
        raise DataError(f"{option}={folder}: has no {task}_*.txt; give the folder of bAbI's tasks, such as en-10k")
    return next((path for path in paths if path.stem.endswith("_test")), paths[0])


def read_stories(path: Path) -> list[Story]:
    """Return one story per question in the file `path`. Raises DataError with the line that is not in bAbI's format."""
    with as_data_error(str(path)):
        content = to_text(path.read_bytes())
    if content is None:
        raise DataError(f"{path}: has no question, it is empty or not utf-8 text; {FORMAT}")
    stories: list[Story] = []
    facts: tuple[str, ...] = ()
    for line_number, line in enumerate(content.splitlines(), start=1):
        number, _, text = line.partition(" ")
        if not number.isdecimal() or not text.strip():
            raise DataError(f"{path}, line {line_number}: {line[:40]!r} is neither a fact nor a question; {FORMAT}")
        # numbers restart with every story
        if number == "1":
            facts = ()
        sentence, *answer = (part.strip() for part in text.split("\t"))
        if not answer:
            facts = (*facts, sentence)
        elif not answer[0] or not facts:
            raise DataError(f"{path}, line {line_number}: a question without an answer or a fact; {FORMAT}")
        else:
            stories.append(Story(facts, sentence, answer[0]))
    if not stories:
        raise DataError(f"{path}: has no question; {FORMAT}")
    return stories


def split_stories(stories: Sequence[Story], held_out: float) -> tuple[list[Story], list[Story]]:
    """Split into training stories and the last fraction `held_out`, from which training stories are removed."""
    cut = round((1 - held_out) * len(stories))
    known = set(stories[:cut])
    return list(stories[:cut]), [story for story in stories[cut:] if story not in known]
