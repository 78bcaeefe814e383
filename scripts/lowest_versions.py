"""Run the tests that touch other packages with the lowest versions of them that `pyproject.toml` allows.

    python scripts/lowest_versions.py /tmp/lowest            # a new environment in this directory, then the tests
    python scripts/lowest_versions.py /tmp/lowest tests/ops  # other tests

Each floor `name>=version` becomes the constraint `name==version`; what these packages need themselves is left to pip.
The environment is kept, so that a second call runs the tests at once. The floor of torch is a build for CUDA on Linux
unless pip looks elsewhere first: `PIP_INDEX_URL=https://download.pytorch.org/whl/cpu`, others by
`PIP_EXTRA_INDEX_URL`.
"""

import subprocess
import sys
import tomllib
import venv
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
EXTRAS = ["data", "hf", "tensorboard", "report", "eval", "sweep", "slurm", "test"]
# where the package meets others: configuration, files, tokenizers, loggers, launchers, exports, the harness
TESTS = ["config", "command", "checkpoint", "data", "logger", "launcher", "hub", "evals/harness", "report", "world"]


def floors() -> list[str]:
    """Return one constraint `name==version` for each requirement of the project that has a floor."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in EXTRAS for line in project["optional-dependencies"][extra])]
    lowest = {}
    for requirement in map(Requirement, lines):
        for part in requirement.specifier:
            if part.operator == ">=":
                lowest[requirement.name] = part.version
    return [f"{name}=={version}" for name, version in sorted(lowest.items())]


def install(directory: Path) -> None:
    """Make the environment in `directory`; raises CalledProcessError where the floors do not fit together."""
    venv.create(directory, with_pip=True, clear=True)
    constraints = directory / "lowest.txt"
    constraints.write_text("\n".join(floors()) + "\n")
    extras = f"{ROOT}[{','.join(EXTRAS)}]"
    subprocess.run([directory / "bin/python", "-m", "pip", "install", "-e", extras, "-c", constraints], check=True)
    (directory / "installed").touch()


def main() -> int:
    if len(sys.argv) < 2:
        print(__doc__)
        return 2
    directory = Path(sys.argv[1]).absolute()
    if not (directory / "installed").exists():
        install(directory)
    tests = sys.argv[2:] or [f"tests/{name}" for name in TESTS]
    return subprocess.run([directory / "bin/python", "-m", "pytest", "-q", *tests], cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
