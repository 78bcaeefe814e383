"""The package: what is installed from a wheel trains outside the checkout, under the licence that it declares."""

import email
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import nested_learning

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel with the build backend that is installed: no isolation, no network."""
    folder = tmp_path_factory.mktemp("wheel")
    code = f"import hatchling.build; hatchling.build.build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, timeout=120)
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_code_and_every_configuration(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    code = {path.relative_to(ROOT).as_posix() for path in (ROOT / "nested_learning").rglob("*.py")}
    configs = {f"nested_learning/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "configs").rglob("*.yaml")}
    assert code | configs <= inside
    assert not [name for name in inside if name.startswith(("tests", "scripts", "runs"))]


def test_the_declared_licence_is_the_one_enclosed(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = email.message_from_bytes(archive.read(name))
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Version"] == nested_learning.__version__
    enclosed = archive.read(f"{Path(name).parent}/licenses/LICENSE").decode()
    assert enclosed == (ROOT / "LICENSE").read_text(encoding="utf-8")
    for words in (
        "Apache License",
        "Version 2.0, January 2004",
        "9. Accepting Warranty",
        "END OF TERMS AND CONDITIONS",
    ):
        assert words in enclosed


def test_hints_install_this_project_and_never_the_one_of_the_same_name_on_the_package_index() -> None:
    pages = [path for top in ("nested_learning", "scripts", "configs", "docs") for path in (ROOT / top).rglob("*.*")]
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *pages]:
        if path.suffix in (".py", ".md", ".yaml", ".sh"):
            assert not re.search(r"pip install '?nested[-_]learning\b(?!-lab)", path.read_text(encoding="utf-8")), path
    assert PROJECT["name"] not in ("nested-learning", "nested_learning")


def test_what_is_installed_trains_outside_the_checkout(wheel: Path, empty_folder: Path) -> None:
    zipfile.ZipFile(wheel).extractall(empty_folder / "site")
    (empty_folder / "work").mkdir()
    code = "import sys; from nested_learning.command.main import main; sys.exit(main())"
    environment = {**os.environ, "PYTHONPATH": str(empty_folder / "site")}
    command = [sys.executable, "-P", "-c", code, "experiment=smoke", "steps=2", "device=cpu", "name=out"]
    done = subprocess.run(
        command, cwd=empty_folder / "work", env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (empty_folder / "work" / "runs" / "out" / "summary.json").is_file()


def test_the_tested_versions_lie_in_the_declared_ranges() -> None:
    from packaging.requirements import Requirement

    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    )
    extras = [line for lines in PROJECT["optional-dependencies"].values() for line in lines]
    for line in [*PROJECT["dependencies"], *extras]:
        requirement = Requirement(line)
        if requirement.name != PROJECT["name"]:
            assert requirement.specifier.contains(pins[requirement.name]), line
    assert pins["torch"] == "2.13.0"


@pytest.mark.slow
def test_a_fresh_environment_installs_the_wheel_and_trains(wheel: Path, empty_folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "fresh"], check=True, timeout=120)
    python = str(empty_folder / "fresh" / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", str(wheel), "-c", str(ROOT / "constraints.txt")]
    subprocess.run(install, check=True, timeout=900)
    nl = str(empty_folder / "fresh" / "bin" / "nl")
    subprocess.run([nl, "experiment=smoke", "steps=2", "device=cpu", "name=out"], check=True, timeout=120)
    assert (empty_folder / "runs" / "out" / "summary.json").is_file()
