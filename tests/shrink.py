"""Commands of the documentation, made small enough for a test: the same parts at tiny sizes."""

RUN = ["device=cpu", "steps=2", "val_every=2", "save_every=2", "log_every=1", "sampling.num_tokens=2"]
MODEL = ["model.dim=16", "model.num_layers=1", "model.num_heads=2"]
ROWS = ["data.batch_size=2", "data.val_rows=2"]
DATA = {
    "stdlib": ["data.seq_len=32", "data.batch_size=2", "data.val_rows=2"],
    "text": ["data.seq_len=32", "data.batch_size=2", "data.val_rows=2"],
    "tokens": ["data.seq_len=32", "data.batch_size=2", "data.val_rows=2"],
    "sequence": ["data.seq_len=32", "data.batch_size=2", "data.val_rows=2"],
    "mixture": ["data.seq_len=32", "data.batch_size=2", "data.val_rows=2"],
    "recall": ["data.gap=4", "data.batch_size=2", "data.val_rows=2"],
    "facts": ["data.batch_size=2", "data.val_rows=2"],
    "needles": ["data.seq_len=128", "data.batch_size=2", "data.val_rows=2"],
    "babilong": ["data.seq_len=128", "data.batch_size=2", "data.val_rows=2"],
    "parity": ["data.max_length=8", "data.batch_size=2", "data.val_rows=2"],
    "copy": ["data.length=4", "data.batch_size=2", "data.val_rows=2"],
    "classes": ["data.steps_each=1", "data.batch_size=2", "data.val_rows=2"],
    "rows": ["data.batch_size=2", "data.val_rows=2"],
    "formal": ["data.max_length=8", "data.batch_size=2", "data.val_rows=2"],
    "mad": ["data.length=8", "data.batch_size=2", "data.val_rows=2"],
}
EVALS = {
    "perplexity": ["evals.perplexity.num_texts=2"],
    "needle": ["evals.needle.num_examples=4"],
    "recall": ["evals.recall.num_rows=2"],
    "zeroshot": ["evals.zeroshot.limit=1"],
    "core": ["evals.core.limit=1"],
}
# what makes other phases small; they refuse keys that they do not read
READING = {"sample": ["device=cpu", "sampling.num_tokens=2"], "export": []}
# experiments for many GPUs and prepared data
LADDER = ("pilot", "mid", "target")
ONE_PROCESS = [
    "world.parallel=ddp",
    "world.shards=null",
    "micro_batches=null",
    "num_workers=0",
    "stages=[]",
]


def shrink(arguments: list[str]) -> list[str]:
    """Add overrides that make a command tiny to its `arguments`; sizes are replaced, choices are kept."""
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    if "phase" in given and given["phase"] != "train":
        # model and data are those of the checkpoint
        packs = given.get("evals", "").strip("[]").split(",")
        tiny = [*READING.get(given["phase"], ["device=cpu"]), *(size for pack in packs for size in EVALS.get(pack, ()))]
    elif given.get("experiment") in LADDER:
        tiny = [*RUN, *MODEL, *ONE_PROCESS, *DATA["text"], "data=text", "data.path=text.py", "objective.chunk=16"]
        if given.get("dry_run") == "true":
            tiny.append("plan.num_gpus=1")
    elif "experiment" in given:
        tiny = [*RUN, "data.batch_size=2", "data.val_rows=2"]
    else:
        tiny = [*RUN, *MODEL, *DATA.get(given.get("data", "stdlib"), ROWS)]
    if "stages" in given:
        # stages cut rows of the configured length
        tiny.remove("data.seq_len=32")
    if "branch_from" in given or any("unit" in argument for argument in arguments):
        # the number of steps must fit the other numbers of steps
        tiny.remove("steps=2")
    if "data.steps_each" in given:
        tiny += ["data.steps_each=1", "keep_every=1"]
    if "data.vocab_size" in given:
        tiny.append("data.vocab_size=258")
    if "sweep" in given or "," in given.get("seed", ""):
        tiny.append("seed=0,1")
    replaced = {line.split("=")[0] for line in tiny}
    return [argument for argument in arguments if argument.split("=")[0] not in replaced] + tiny
