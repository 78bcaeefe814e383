"""The options of every group, by name: which class of configuration each stands for.

A new option is one line here, one class, and one file in configs/. This module must not import torch.
"""

from nested_learning.data.mixture import MixtureConfig
from nested_learning.data.sequence import SequenceConfig
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
from nested_learning.evals.continual.config import ClassIncrementalConfig, ContinualConfig, ContinualMemoryConfig
from nested_learning.evals.harness.config import CoreConfig, ZeroShotConfig
from nested_learning.evals.language.config import (
    MemoryPackConfig,
    PerplexityConfig,
    TranslationConfig,
    ValidationConfig,
)
from nested_learning.evals.retrieval.config import (
    BabilongPackConfig,
    NeedleConfig,
    NiahConfig,
    PasskeyConfig,
    PromptsConfig,
)
from nested_learning.evals.synthetic.config import FormalPackConfig, MadPackConfig, RecallPackConfig
from nested_learning.inference.config import MemorizeConfig, MemoryConfig
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
from nested_learning.phase.config import EvalPhaseConfig, ExportConfig, SamplePhaseConfig, TrainPhaseConfig

# the configuration class of each option, by group and by the option's `name`
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
        "nl_l2_precond": OptimConfig,
        "m3": OptimConfig,
    },
    "data": {
        "stdlib": StdlibConfig,
        "text": TextConfig,
        "tokens": TokensConfig,
        "mixture": MixtureConfig,
        "sequence": SequenceConfig,
        "recall": RecallConfig,
        "rows": RowsConfig,
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
    "phase": {
        "train": TrainPhaseConfig,
        "eval": EvalPhaseConfig,
        "sample": SamplePhaseConfig,
        "export": ExportConfig,
    },
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
        "prompts": PromptsConfig,
        "babilong": BabilongPackConfig,
    },
    "launcher": {"serial": SerialConfig, "joblib": JoblibConfig, "submitit": SubmititConfig},
    "logger": {"wandb": WandbConfig, "tensorboard": TensorboardConfig},
}
# groups of which a run can have any number of options
LISTED = ("evals", "logger")
