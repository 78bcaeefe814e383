"""What a key that does not exist may mean: the same word elsewhere, or another word for it. Must not import torch."""

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from nested_learning.config.registry import CHOICES
from nested_learning.typed import full_key

# words of other programs -> our key
ALIASES = {
    word: ours
    for ours, words in {
        "lr": "learning_rate max_lr base_lr peak_lr eta",
        "steps": "epochs num_epochs num_train_epochs max_epochs max_steps num_steps total_steps train_steps "
        "num_train_steps iterations iters max_iters num_iters",
        "batch_size": "bs batch micro_batch_size train_batch_size per_device_train_batch_size",
        "seq_len": "sequence_length max_seq_len max_length context context_length ctx_len n_ctx block_size length "
        "window_size",
        "dim": "hidden_size hidden_dim d_model n_embd embed_dim embedding_dim width",
        "num_layers": "layers n_layer n_layers num_hidden_layers depth num_blocks",
        "num_heads": "heads n_head n_heads num_attention_heads",
        "micro_batches": "accumulate grad_accum accumulation_steps gradient_accumulation_steps accumulate_grad_batches",
        "clip": "grad_clip clip_grad clip_grad_norm max_grad_norm gradient_clip_val",
        "warmup": "warmup_steps warmup_ratio warmup_iters num_warmup_steps",
        "schedule": "scheduler lr_scheduler lr_scheduler_type",
        "weight_decay": "wd decay_weight",
        "momentum": "beta1",
        "optim": "optimizer optimiser opt",
        "data": "dataset datasets corpus",
        "model": "arch architecture network net",
        "objective": "loss criterion",
        "evals": "eval evaluation evaluations benchmark benchmarks tasks",
        "logger": "log loggers wandb tensorboard report_to",
        "out": "output output_dir out_dir outdir save_dir log_dir logdir run_dir",
        "name": "run run_name exp_name experiment_name job_name",
        "checkpoint": "ckpt load load_from checkpoint_path ckpt_path",
        "resume": "resume_from resume_from_checkpoint",
        "dtype": "precision fp16 bf16 mixed_precision amp",
        "val_every": "eval_every eval_interval val_interval eval_steps val_check_interval",
        "save_every": "save_interval save_steps ckpt_every checkpoint_every checkpoint_interval",
        "log_every": "log_interval logging_steps log_steps",
        "num_workers": "workers dataloader_num_workers",
        "num_tokens": "max_new_tokens max_tokens",
        "temperature": "temp",
        "seed": "random_seed manual_seed",
        "path": "file folder data_dir data_path train_file",
        "recompute": "gradient_checkpointing activation_checkpointing checkpointing",
        "label_smoothing": "smoothing",
        "ema": "ema_decay",
        "period": "update_period update_frequency chunk_size",
    }.items()
    for word in words.split()
}
# suggestions in one message
MAX_SHOWN = 3


def suggest(key: str, values: Any, siblings: Sequence[str]) -> str:
    """Return "did you mean ...? " for a `key` that does not exist in the configuration `values`, "" without an idea.

    In this order: the same word, or our word for it, below the same key; a key that other options of the group have;
    the same word anywhere; a similar word beside it (`siblings`); a similar word anywhere.
    """
    parent, _, name = key.rpartition(".")
    keys = [shown for each, shown in _full_keys(values) if each != key]
    wanted = {name, ALIASES.get(name.lower(), name)}
    same = [each for each in keys if _last(each) in wanted]
    if inside := [each for each in same if each.startswith(f"{parent}.")]:
        return _question(inside)
    if others := _options_with(parent, name):
        return f"only {', '.join(others)} {'has' if len(others) == 1 else 'have'} it; "
    if same:
        return _question([each for each in same if each in wanted] or same)
    if near := get_close_matches(name, siblings, n=1):
        return _question([full_key(parent, near[0])])
    near = get_close_matches(name, sorted({_last(each) for each in keys}), n=1)
    return _question([each for each in keys if _last(each) in near])


def takes_list(root: type, key: str) -> bool:
    """Say whether a list may be the value of `key`, in the class `root` of all settings or in an option of a group."""
    group, _, inside = key.partition(".")
    kinds = [*_kinds_below([root], key), *_kinds_below([*CHOICES.get(group, {}).values()], inside)]
    return any(get_origin(each) is list for each in kinds)


def _question(keys: Sequence[str]) -> str:
    if not keys:
        return ""
    *first, last = keys[:MAX_SHOWN]
    return f"did you mean {', '.join(first)}{' or ' if first else ''}{last}? "


def _last(key: str) -> str:
    return key.rpartition(".")[2]


def _full_keys(values: Any, parent: str = "", shown: str = "") -> Iterator[tuple[str, str]]:
    """Yield the full names of all keys of nested mappings and lists, with elements of lists by number and by name."""
    if isinstance(values, dict):
        for key, value in values.items():
            name = str(key)
            yield full_key(parent, name), full_key(shown, name)
            yield from _full_keys(value, full_key(parent, name), full_key(shown, name))
    elif isinstance(values, list):
        for number, value in enumerate(values):
            name = str(value.get("name", number)) if isinstance(value, dict) else str(number)
            yield from _full_keys(value, full_key(parent, str(number)), full_key(shown, name))


def _options_with(parent: str, name: str) -> list[str]:
    """Return the options, as `group=option`, of the group that `parent` begins with whose `parent` has a key `name`."""
    group, _, inside = parent.partition(".")
    full = full_key(inside, name)
    return [f"{group}={option}" for option, kind in CHOICES.get(group, {}).items() if any(_kinds_below([kind], full))]


def _kinds_below(kinds: Sequence[Any], key: str) -> Iterator[Any]:
    """Yield the types of `key` below each of `kinds`; any name is an element of a list or mapping."""
    name, _, rest = key.partition(".")
    for kind in kinds:
        if get_origin(kind) in (Union, UnionType):
            yield from _kinds_below(get_args(kind), key)
        elif not key:
            yield kind
        elif is_dataclass(kind) and name in {field.name for field in fields(kind)}:
            yield from _kinds_below([get_type_hints(kind)[name]], rest)
        elif get_origin(kind) in (list, dict):
            yield from _kinds_below(get_args(kind)[-1:], rest)
