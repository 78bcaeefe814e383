"""Update rules: how weights change with a gradient. Memories, levels and optimizers share them.

This table contains what a configuration must know about each rule, and imports no torch. The file
`ops/rules/<name>.py` has two functions, `init_<name>(w) -> state` and
`<name>(w, g, state, *, lr, weight_decay, ...) -> (w, state)`. They are pure and differentiable. A state is a NamedTuple
of integers and of tensors whose batch dimensions are those of the weights. A new rule is one file and one line in
`RULES`; optimizers may have a faster form in `optim/updates.py`.
"""

from typing import NamedTuple


class Rule(NamedTuple):
    """A rule as configurations see it.

    `keys`: the keywords of its function besides lr and weight_decay, all of which must be configured. `min_rank` 0:
    the rule is element-wise; 2: the last two dimensions of the weights are a matrix `[out, in]`, the others a batch.
    `reads_inputs`: its function has a keyword `x`, the inputs `[*, n, in]` of the linear map. `in_context`: levels of
    the continuum memory may learn by it while a context is read.
    """

    keys: tuple[str, ...] = ()
    min_rank: int = 0
    reads_inputs: bool = False
    in_context: bool = False

    @property
    def asks_for_matrix(self) -> bool:
        """Say whether a group must say how a parameter of more than two dimensions becomes matrices."""
        # a rule that reads inputs takes only linear layers, whose weights are matrices already
        return self.min_rank == 2 and not self.reads_inputs


RULES = {
    "gd": Rule(in_context=True),
    "momentum": Rule(("momentum",), in_context=True),
    "preconditioned_momentum": Rule(("momentum", "beta", "eps")),
    "delta_momentum": Rule(("momentum", "erase"), min_rank=2),
    "deep_momentum": Rule(("memory_lr", "retention"), min_rank=2),
    "dgd": Rule(("input_decay",), min_rank=2, reads_inputs=True, in_context=True),
    "adamw": Rule(("betas", "eps"), in_context=True),
    "muon": Rule(("momentum",), min_rank=2, in_context=True),
    "m3": Rule(("slow_weight", "slow_every", "eps"), min_rank=2),
}
