"""The documentation as tests read it: sections, fenced blocks, commands, and the runs that commands use."""

import re
import shlex
import shutil
from pathlib import Path

from shrink import shrink

from nested_learning.command import main as cli

ROOT = Path(__file__).parents[1]
# runs that a section may use without training them: the first commands of the README
RUNS = {"first": ["name=first", "model=hope"], "gap": ["name=gap", "experiment=recall"]}


def sections(page: str) -> dict[str, str]:
    """Return the text of every section of a page by its heading; the text above the first one is that of ""."""
    text = (ROOT / page).read_text(encoding="utf-8")
    first, *others = re.split(r"^## ", text, flags=re.MULTILINE)
    return {"": first} | dict(other.split("\n", 1) for other in others)


def blocks(text: str, language: str) -> list[str]:
    """Return the fenced blocks of `text` in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def is_recipe(text: str) -> bool:
    """Say whether a section has files that belong into the package: then its commands work in a copy only."""
    return re.search(r"^```\w+\n# nested_learning/", text, re.MULTILINE) is not None


def commands(text: str) -> list[list[str]]:
    """Return every command in the shell blocks of `text`, split as a shell does."""
    # a backslash continues a command in the next line
    lines = [line for block in blocks(text, "sh") for line in block.replace("\\\n", " ").splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def bring_runs(text: str, shelf: Path, folder: Path) -> None:
    """Copy the runs of RUNS that `text` uses, and does not train, into `folder`; the `shelf` keeps them for others."""
    for name, arguments in RUNS.items():
        if f"runs/{name}" not in text or f" name={name} " in text.replace("\n", " "):
            continue
        if not (shelf / name).exists():
            assert cli.main(shrink([*arguments, f"out={shelf}"])) == 0
        shutil.copytree(shelf / name, folder / name)


def anchors(page: Path) -> set[str]:
    """Return the names by which links reach the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
