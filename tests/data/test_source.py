import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from nested_learning.data.mixture import MixtureConfig
from nested_learning.data.sequence import SequenceConfig
from nested_learning.data.source import DataConfig
from nested_learning.data.tasks.babilong import BabilongConfig
from nested_learning.data.tasks.classes import ClassesConfig
from nested_learning.data.tasks.copy import CopyConfig
from nested_learning.data.tasks.facts import FactsConfig
from nested_learning.data.tasks.formal import FormalConfig
from nested_learning.data.tasks.mad import MadConfig
from nested_learning.data.tasks.needles import NeedlesConfig
from nested_learning.data.tasks.parity import ParityConfig
from nested_learning.data.tasks.recall import RecallConfig
from nested_learning.data.tasks.rows import RowsConfig
from nested_learning.data.text.stdlib import StdlibConfig
from nested_learning.data.text.text import TextConfig
from nested_learning.data.text.tokens import TokensConfig

CONFIGS = Path(__file__).parents[2] / "configs" / "data"

OPTIONS: list[DataConfig] = [
    StdlibConfig(),
    TextConfig(path="given"),
    TokensConfig(path="given"),
    MixtureConfig(sources={"code": StdlibConfig()}, weights={"code": 1.0}),
    SequenceConfig(sources={"code": StdlibConfig(), "more": StdlibConfig()}),
    RecallConfig(),
    FactsConfig(),
    NeedlesConfig(),
    BabilongConfig(path="given"),
    ParityConfig(),
    CopyConfig(),
    ClassesConfig(path="given"),
    RowsConfig(path="given", vocab_size=64),
    FormalConfig(),
    MadConfig(),
]


# what has no default: an option without it is refused
NEEDED = {
    "text": {"path": None},
    "tokens": {"path": None},
    "classes": {"path": None},
    "rows": {"path": None, "vocab_size": None},
    "babilong": {"path": None},
    "mixture": {"sources": {}, "weights": {}},
    "sequence": {"sources": {}},
}


def test_every_shipped_option_has_a_class() -> None:
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == {option.name for option in OPTIONS}


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_a_shipped_option_states_every_key_and_the_same_defaults_as_its_class(option: DataConfig) -> None:
    text = (CONFIGS / f"{option.name}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert yaml.safe_load(text) == asdict(option) | NEEDED.get(option.name, {})


def test_options_and_tokenizers_do_not_import_torch() -> None:
    modules = (
        "source",
        "tasks.synthetic",
        "text.stdlib",
        "text.text",
        "tasks.recall",
        "tasks.facts",
        "tasks.needles",
        "tasks.babilong",
        "tokenizers.words",
        "tasks.parity",
        "tasks.copy",
        "tasks.formal",
        "tasks.mad",
        "tasks.classes",
        "tasks.rows",
        "text.tokens",
        "mixture",
        "sequence",
        "curriculum",
        "tokenizers.bpe",
        "order",
    )
    imports = ", ".join(f"nested_learning.data.{module}" for module in modules)
    heavy = "{'torch', 'tokenizers', 'hydra', 'omegaconf'}"
    program = f"import sys, {imports}; print(sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
