"""The YAML files of options: which exist, and which file a key was set in."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nested_learning.errors import ConfigError

PACKAGE = Path(__file__).parents[1]
# the root configuration
ROOT = "train"
# inside the package when installed from a wheel, next to it in a checkout
SHIPPED = next(folder for folder in (PACKAGE / "configs", PACKAGE.parent / "configs") if folder.is_dir())


@dataclass(frozen=True)
class OptionFiles:
    """The folders that hold option files: the shipped folder, then the user's own; no option is in both."""

    folders: tuple[Path, ...]

    def groups(self) -> list[str]:
        """Return the names of the groups."""
        return sorted({path.parent.name for folder in self.folders for path in folder.glob("*/*.yaml")})

    def options(self, group: str) -> list[str]:
        """Return the names of the options of `group` ("" for the root); an unknown group has none."""
        paths = [path for folder in self.folders for path in (folder / group).glob("*.yaml")]
        return sorted({path.stem for path in paths if path.is_file()})

    def find(self, name: str) -> Path | None:
        """Return the file of an option such as `model/hope`, or None."""
        return next((path for folder in self.folders if (path := folder / f"{name}.yaml").is_file()), None)

    def read(self, name: str) -> dict[str, Any]:
        """Return the content of an option's file, {} when there is no file; raise ConfigError when it is no mapping."""
        path = self.find(name)
        if path is None:
            return {}
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        # brackets may be nested deeper than Python's stack
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            # yaml's message spans several lines
            raise ConfigError(f"{shown(path)}: not YAML: {' '.join(str(error).split())}") from error
        if not isinstance(content, dict):
            raise ConfigError(f"{shown(path)}: must hold `key: value` lines, the first of them `name: <option>`")
        return content

    def origin(self, key: str, chosen: Mapping[str, str]) -> str:
        """Return the file that sets `key`, "" when it is unknown.

        `chosen` maps an option file such as `model/hope` to the key that its content is merged under ("" for the root),
        in order of precedence. For a key that is in none of them, return the file that should have it.
        """
        expected = ""
        for name, package in chosen.items():
            path = self.find(name)
            if path is None or not (package == "" or f"{key}.".startswith(f"{package}.")):
                continue
            if _holds(self.read(name), key[len(package) :].strip(".").split(".")):
                return shown(path)
            expected = expected or (shown(path) if package else "")
        return expected


def open_option_files(config_dir: str | None) -> OptionFiles:
    """Return the shipped option files and those of `config_dir`.

    Raises ConfigError when it is no folder, and when it has a file with the name of a shipped one: files cannot replace
    shipped ones.
    """
    if config_dir is None:
        return OptionFiles((SHIPPED,))
    folder = Path(config_dir).resolve()
    if not folder.is_dir():
        raise ConfigError(f"--config-dir {config_dir}: no such folder; give one with files such as model/mine.yaml")
    for path in [*folder.glob("*.yaml"), *folder.glob("*/*.yaml")]:
        if (SHIPPED / path.relative_to(folder)).exists():
            raise ConfigError(f"{shown(path)}: a shipped file has this name; rename this one")
    return OptionFiles((SHIPPED, folder))


def shown(path: Path) -> str:
    """Write a path relative to the working directory when it lies inside."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _holds(content: Any, names: list[str]) -> bool:
    for name in names:
        if isinstance(content, list) and name.isdigit() and int(name) < len(content):
            content = content[int(name)]
        elif isinstance(content, dict) and name in content:
            content = content[name]
        else:
            return False
    return True
