"""Language models that learn classes task after task, evaluated by `evals=class_incremental`."""

import time
from pathlib import Path

from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.phase import eval as phase
from nested_learning.phase import train as training

# five tasks of five classes, which a model of minutes can learn
STEPS, TASKS, LABELS = 40, 5, 25
MODELS = {
    "transformer": ("model=transformer",),
    "hope": ("model=hope", "model.levels=[{name:fast,period:0},{name:slow,period:51200}]"),
    "transformer_m3": ("model=transformer", "optim=m3"),
    "joint": ("model=transformer", "data.is_joint=true"),
}


def complete(name: str, seed: int, data: Path, out: Path) -> None:
    """Train the model `name` on the tasks in the order `seed`, and evaluate it, unless that was done."""
    run = out / f"model-{name}-{seed}"
    if (run / "evals" / "class_incremental.json").exists():
        return
    started, folder = time.process_time(), data / "continual" / "clinc150"
    lines = [
        "experiment=class_incremental", f"seed={seed}", f"out={out}", f"name={run.name}", "device=cpu", "evals=[]",
        f"data.path={folder / 'train.jsonl'}", f"data.validation_path={folder / 'val.jsonl'}", f"data.order={seed}",
        f"data.num_tasks={TASKS}", f"data.num_labels={LABELS}", "data.vocab_size=512", f"data.steps_each={STEPS}",
        f"steps={TASKS * STEPS}", f"val_every={TASKS * STEPS}", f"save_every={STEPS}", f"keep_every={STEPS}",
        "data.val_rows=64", *MODELS[name],
    ]  # fmt: skip
    training.run(make_job(open_option_files(None), lines).config)
    overrides = ["phase=eval", f"checkpoint={run}", "evals=class_incremental", "evals.class_incremental.per_label=6"]
    phase.run(make_job(open_option_files(None), [*overrides, "device=cpu"]).config)
    print(f"{time.strftime('%X')} {run.name}: {time.process_time() - started:.0f} CPU seconds", flush=True)


def evaluate_reading(seed: int, out: Path) -> None:
    """Evaluate the joint model on other labels that it reads: in one context, and by memorizing them."""
    run = out / f"model-joint-{seed}"
    if not run.exists() or (run / "evals" / "class_incremental_memorize_reading.json").exists():
        return
    started = time.process_time()
    overrides = [
        "phase=eval", f"checkpoint={run}", "name=reading", "evals=class_incremental", "device=cpu",
        "evals.class_incremental.mode=memory", "evals.class_incremental.per_label=3",
        "evals.class_incremental.batch_size=16", f"data.order={seed + 100}", "data.texts_per_label=4",
        "memory=memorize", "memory.steps=3", "memory.lr=0.3",
    ]  # fmt: skip
    phase.run(make_job(open_option_files(None), overrides).config)
    print(f"{time.strftime('%X')} reading-{seed}: {time.process_time() - started:.0f} CPU seconds", flush=True)
