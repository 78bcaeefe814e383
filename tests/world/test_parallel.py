"""Two and four processes learn the same as one, with replicated and sharded parameters and memories that learn."""

import pytest
from safetensors.torch import load_file
from tiny import tiny
from together import together
from world.members import ALONE, learn, learn_all

SHARED = {"steps": 2, "data__batch_size": 8, "data__seq_len": 16, "data__val_rows": 5, "optim__clip": 0.05}
SHARED |= {"backend": "eager", "model__num_layers": 1}
LEVELS = "[{name: fast, period: 8, context: {rule: gd, lr: 0.5}}, {name: slow, period: 0}]"
CHUNKS = {"objective__chunk": 24, "objective__z_loss": 0.01, "objective__label_smoothing": 0.1, "model__softcap": 5.0}
MODELS = {
    "transformer": {"model": "transformer", "model__tie_embedding": "true", **CHUNKS, "optim__ema": 0.9},
    "titans_lmm": {"model": "titans_lmm", "optim": "mixed_muon"},
    "hope": {"model": "hope"},
    "hope_online": {"model": "hope", "objective": "online", "model__levels": LEVELS},
}
PLANS = {"ddp": {}, "fsdp": {"world__parallel": "fsdp"}, "hsdp": {"world__parallel": "fsdp", "world__shards": 2}}
SIZES = {"ddp": 2, "fsdp": 2, "hsdp": 4}
CASES = [(model, plan) for model in MODELS for plan in PLANS if model != "hope_online" or plan == "fsdp"]


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """Train every case with several processes, once for all tests, and every model with one."""
    folder = tmp_path_factory.mktemp("parallel")
    found = {}
    for size in (2, 4):
        cases = {
            f"{model}_{plan}": tiny(folder, micro_batches=8, **SHARED | MODELS[model] | PLANS[plan])
            for model, plan in CASES
            if SIZES[plan] == size
        }
        of_each = together(learn_all, size, cases, folder)
        assert all(of_one == of_each[0] for of_one in of_each[1:])
        found |= of_each[0]
    for model in MODELS:
        (folder / model).mkdir()
        found[model] = learn(tiny(folder, micro_batches=2, **SHARED | MODELS[model]), ALONE, folder / model)
    return folder, found


@pytest.mark.parametrize(("model", "plan"), CASES)
def test_several_processes_learn_the_same_as_one_from_rows_with_unequal_numbers_of_targets(model, plan, learned):
    folder, found = learned
    *metrics, (sharded,) = found[f"{model}_{plan}"]
    for here, there in zip(metrics, found[model][:-1], strict=True):
        assert here == pytest.approx(there, rel=1e-10)
    weights = load_file(folder / f"{model}_{plan}" / "model.safetensors")
    expected = load_file(folder / model / "model.safetensors")
    assert weights.keys() == expected.keys()
    for name, weight in weights.items():
        assert (weight - expected[name]).abs().max() < 1e-9, name
    assert sharded == (0 if plan == "ddp" else len(expected))
