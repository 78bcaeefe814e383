"""What README and docs tell people to type works: every command and every piece of Python, at tiny sizes, in order."""

import re
import shlex
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from shrink import shrink

from nested_learning.command import main as cli
from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.report import __main__ as report

ROOT = Path(__file__).parents[2]
# in reading order: later pages use the runs of earlier ones
PAGES = ["README.md", "docs/quickstart.md", "docs/concepts.md", "docs/how-to.md", "docs/run-directory.md"]
# a question of a file that users have to get
QUESTION = (
    '{"query": "The man turned on the faucet, therefore", "gold": 1, "choices": ["it snowed.", "water flowed."]}\n'
)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """Return (language, text) for every fenced block of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    yield from re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(page: str) -> list[list[str]]:
    """Return every command of a page, split as a shell does."""
    # a command may go on in the next line
    texts = [text.replace("\\\n", " ") for language, text in blocks(page) if language == "sh"]
    lines = [line for text in texts for line in text.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def check_command(words: list[str]) -> None:
    """Run a training command at tiny sizes; of any other command check that what it names is there."""
    program, *rest = words
    if words[:2] == ["python", "train.py"]:
        shrunk = rest[1:] if "--help" in rest else shrink(rest[1:])
        if "evals.zeroshot.official=true" in rest:
            # downloads
            make_job(open_option_files(None), shrunk)
            return
        assert cli.main(shrunk) == 0, f"{shlex.join(words)}, run as {shlex.join(shrunk)}"
    elif words[:3] == ["python", "-m", "nested_learning.report"]:
        assert report.main(rest[2:]) == 0, shlex.join(words)
    elif words[:2] == ["python", "-m"]:
        assert find_spec(words[2]) is not None, shlex.join(words)
    elif program == "torchrun":
        make_job(open_option_files(None), rest[rest.index("train.py") + 1 :])
    elif program == "python":
        assert (ROOT / rest[0]).is_file(), shlex.join(words)
    elif program == "make":
        assert f"\n{rest[0]}:" in (ROOT / "Makefile").read_text(), shlex.join(words)
    elif program == "pip":
        assert "-c" not in rest or (ROOT / rest[rest.index("-c") + 1]).is_file(), shlex.join(words)
    else:
        assert program in ("tensorboard", "wandb", "cd"), f"no test knows how to check: {shlex.join(words)}"


def test_readme_begins_with_the_two_commands_that_matter() -> None:
    assert [words[:2] for words in commands("README.md")[:2]] == [["make", "train"], ["make", "test"]]
    assert commands("README.md")[2] == ["pip", "install", "-e", ".", "-c", "constraints.txt"]


def test_what_the_pages_tell_to_type_works(empty_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    shutil.copytree(ROOT / "docs", empty_folder / "docs")
    shutil.copy(ROOT / "README.md", empty_folder)
    (empty_folder / "icl").mkdir()
    (empty_folder / "icl" / "copa.jsonl").write_text(QUESTION * 2)
    for page in PAGES:
        for words in commands(page):
            check_command(words)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *PAGES[1:], "docs/equations.md"])
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert [link for link in LINK.findall(text) if not (ROOT / page).parent.joinpath(link).exists()] == []


def test_readme_names_every_option() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    files = open_option_files(None)
    rows = dict(re.findall(r"^\| `(\w+)` \| ([\w, ]+) \|", text, re.MULTILINE))
    for group in set(files.groups()) - {"experiment", "sweep"}:
        assert sorted(rows[group].split(", ")) == files.options(group)
