"""The options of every group, by name: which class of configuration each stands for.

A new option is one line here, one class, and one file in configs/. This module must not import torch.
"""

from dataclasses import dataclass

from nested_learning.data.babilong import BabilongConfig
from nested_learning.data.classes import ClassesConfig
from nested_learning.data.copy import CopyConfig
from nested_learning.data.facts import FactsConfig
from nested_learning.data.formal import FormalConfig
from nested_learning.data.mad import MadConfig
from nested_learning.data.mixture import MixtureConfig
from nested_learning.data.needles import NeedlesConfig
from nested_learning.data.parity import ParityConfig
from nested_learning.data.recall import RecallConfig
from nested_learning.data.sequence import SequenceConfig
from nested_learning.data.stdlib import StdlibConfig
from nested_learning.data.text import TextConfig
from nested_learning.data.tokens import TokensConfig
from nested_learning.evals.options.babilong import BabilongPackConfig
from nested_learning.evals.options.class_incremental import ClassIncrementalConfig
from nested_learning.evals.options.continual import ContinualConfig
from nested_learning.evals.options.continual_memory import ContinualMemoryConfig
from nested_learning.evals.options.core import CoreConfig
from nested_learning.evals.options.formal import FormalPackConfig
from nested_learning.evals.options.mad import MadPackConfig
from nested_learning.evals.options.memory import MemoryPackConfig
from nested_learning.evals.options.needle import NeedleConfig
from nested_learning.evals.options.niah import NiahConfig
from nested_learning.evals.options.passkey import PasskeyConfig
from nested_learning.evals.options.perplexity import PerplexityConfig
from nested_learning.evals.options.recall import RecallPackConfig
from nested_learning.evals.options.translation import TranslationConfig
from nested_learning.evals.options.validation import ValidationConfig
from nested_learning.evals.options.zeroshot import ZeroShotConfig
from nested_learning.launcher.joblib import JoblibConfig
from nested_learning.launcher.serial import SerialConfig
from nested_learning.launcher.submitit import SubmititConfig
from nested_learning.logger.tensorboard import TensorboardConfig
from nested_learning.logger.wandb import WandbConfig
from nested_learning.model.associative import AssociativeConfig
from nested_learning.model.hope import HopeConfig
from nested_learning.model.hope_attention import HopeAttentionConfig
from nested_learning.model.lstm import LSTMConfig
from nested_learning.model.titans import TitansMACConfig, TitansMAGConfig, TitansMALConfig
from nested_learning.model.transformer import TransformerConfig
from nested_learning.objective.config import NextTokenConfig, OnlineConfig, ReconstructConfig
from nested_learning.optim.config import OptimConfig
from nested_learning.policy import MemorizeConfig, MemoryConfig

AnyModel = (
    TransformerConfig
    | AssociativeConfig
    | HopeConfig
    | HopeAttentionConfig
    | LSTMConfig
    | TitansMACConfig
    | TitansMAGConfig
    | TitansMALConfig
)


@dataclass(kw_only=True)
class PhaseConfig:
    """What to do: train, eval, sample or export."""

    name: str


@dataclass(kw_only=True)
class ExportConfig(PhaseConfig):
    """Where `phase=export` writes: the directory `to`, None for the folder `export` of the run."""

    to: str | None


# which class the `name` in a group's values stands for
CHOICES: dict[str, dict[str, type]] = {
    "model": {
        "transformer": TransformerConfig,
        "linear_attention": AssociativeConfig,
        "retnet": AssociativeConfig,
        "deltanet": AssociativeConfig,
        "gated_deltanet": AssociativeConfig,
        "ttt_linear": AssociativeConfig,
        "ttt_mlp": AssociativeConfig,
        "titans_lmm": AssociativeConfig,
        "titans_deep": AssociativeConfig,
        "titans_mac": TitansMACConfig,
        "titans_mag": TitansMAGConfig,
        "titans_mal": TitansMALConfig,
        "self_modifying": HopeConfig,
        "hope": HopeConfig,
        "hope_attention": HopeAttentionConfig,
        "lstm": LSTMConfig,
    },
    "optim": {
        "adamw": OptimConfig,
        "muon": OptimConfig,
        "mixed_muon": OptimConfig,
        "mixed_muon_large": OptimConfig,
        "momentum": OptimConfig,
        "preconditioned_momentum": OptimConfig,
        "delta_momentum": OptimConfig,
        "deep_momentum": OptimConfig,
        "dgd": OptimConfig,
        "m3": OptimConfig,
    },
    "data": {
        "stdlib": StdlibConfig,
        "text": TextConfig,
        "tokens": TokensConfig,
        "mixture": MixtureConfig,
        "sequence": SequenceConfig,
        "recall": RecallConfig,
        "facts": FactsConfig,
        "needles": NeedlesConfig,
        "babilong": BabilongConfig,
        "parity": ParityConfig,
        "copy": CopyConfig,
        "classes": ClassesConfig,
        "formal": FormalConfig,
        "mad": MadConfig,
    },
    "objective": {"next_token": NextTokenConfig, "online": OnlineConfig, "reconstruct": ReconstructConfig},
    "memory": {"online": MemoryConfig, "frozen": MemoryConfig, "memorize": MemorizeConfig},
    "phase": {"train": PhaseConfig, "eval": PhaseConfig, "sample": PhaseConfig, "export": ExportConfig},
    "evals": {
        "class_incremental": ClassIncrementalConfig,
        "perplexity": PerplexityConfig,
        "validation": ValidationConfig,
        "recall": RecallPackConfig,
        "mad": MadPackConfig,
        "formal": FormalPackConfig,
        "memory": MemoryPackConfig,
        "continual": ContinualConfig,
        "continual_memory": ContinualMemoryConfig,
        "zeroshot": ZeroShotConfig,
        "core": CoreConfig,
        "translation": TranslationConfig,
        "needle": NeedleConfig,
        "niah": NiahConfig,
        "passkey": PasskeyConfig,
        "babilong": BabilongPackConfig,
    },
    "launcher": {"serial": SerialConfig, "joblib": JoblibConfig, "submitit": SubmititConfig},
    "logger": {"wandb": WandbConfig, "tensorboard": TensorboardConfig},
}
# groups of which a run takes any number of options, by name
LISTED = ("evals", "logger")
