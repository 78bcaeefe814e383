"""Exported models in `transformers`: after `register()`, AutoConfig and AutoModelForCausalLM open them."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from nested_learning.errors import ConfigError
from nested_learning.hub.pretrained import MODEL_TYPE, NestedModel


@cache
def register() -> tuple[type, type]:
    """Make AutoConfig, AutoModelForCausalLM and `generate()` know this project's models; return the two new classes.

    Call it once, before `AutoModelForCausalLM.from_pretrained(<directory of phase=export>)`. Rows of a batch must
    have one length, and beam search is not supported: a memory's update cannot be undone.
    Raises ConfigError without the package `transformers`.
    """
    library = _library()
    config_class, model_class = _classes(library)
    library.AutoConfig.register(MODEL_TYPE, config_class)
    library.AutoModelForCausalLM.register(config_class, model_class)
    return config_class, model_class


def _classes(library: Any) -> tuple[Any, Any]:
    """Define a configuration and a model class derived from those of `transformers`, as it requires."""

    # a class statement would be turned into a dataclass by the base; there is nothing to declare
    NestedConfig: Any = type("NestedConfig", (library.PreTrainedConfig,), {"model_type": MODEL_TYPE})  # noqa: N806

    @dataclass
    class NestedOutput(library.utils.ModelOutput):
        loss: torch.Tensor | None = None
        logits: torch.Tensor | None = None
        state: Any = None

    class NestedForCausalLM(library.PreTrainedModel, library.GenerationMixin):
        config_class = NestedConfig
        base_model_prefix = "model"
        # a state cannot be truncated to fewer tokens
        _is_stateful = True
        _supported_generation_modes = ("greedy_search", "sample")

        def __init__(self, config: Any, nested: NestedModel) -> None:
            super().__init__(config)
            self.nested = nested

        @property
        def model(self) -> nn.Module:
            return self.nested.model

        @classmethod
        def from_pretrained(cls, path: Any, *args: Any, config: Any = None, **keywords: Any) -> Any:
            _refuse(args, keywords)
            nested = NestedModel.from_pretrained(path, device="cpu")
            return cls(config or NestedConfig.from_pretrained(path), nested).eval()

        def save_pretrained(self, path: str | Path, **_keywords: Any) -> None:
            self.nested.save_pretrained(path)

        def _supports_default_dynamic_cache(self) -> bool:
            return False

        def prepare_inputs_for_generation(
            self, input_ids: torch.Tensor, state: Any = None, attention_mask: Any = None, **_keywords: Any
        ) -> dict[str, Any]:
            unread = input_ids if state is None else input_ids[:, -1:]
            return {"input_ids": unread, "state": state, "attention_mask": attention_mask}

        def forward(
            self,
            input_ids: torch.Tensor,
            state: Any = None,
            attention_mask: torch.Tensor | None = None,
            labels: torch.Tensor | None = None,
            **_keywords: Any,
        ) -> NestedOutput:
            if attention_mask is not None and not attention_mask.bool().all():
                raise ConfigError("attention_mask: a memory cannot skip padding; give rows of one length, or one row")
            logits, state = self.nested(input_ids, state)
            loss = None if labels is None else _next_token_loss(logits, labels)
            return NestedOutput(loss=loss, logits=logits, state=state)

    return NestedConfig, NestedForCausalLM


def _next_token_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean nats of `labels`, which are unshifted, as in `transformers`; -100 has no loss."""
    return F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten())


def _refuse(args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    """Raise ConfigError for arguments that are not supported: parameters and memory states are float32."""
    dtype = keywords.get("dtype") or keywords.get("torch_dtype")
    if dtype not in (None, "auto", "float32", torch.float32):
        raise ConfigError(f"dtype={dtype}: the model is float32; leave dtype out, and use torch.autocast around it")
    if args or keywords.get("device_map") is not None or keywords.get("quantization_config") is not None:
        raise ConfigError("from_pretrained: takes the directory alone; move the model with .to(device) afterwards")


def _library() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ConfigError("nested_learning.hub.transformers: needs transformers; pip install -e '.[hf]'") from error
    return transformers
