"""FLOPs computed from a configuration equal those counted while the whole model runs."""

import math

import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.config.registry import CHOICES
from nested_learning.data.batch import Batch
from nested_learning.objective.config import NextTokenConfig
from nested_learning.planning.flops import Flops, flops, most_operations, parameters_in_products, utilisation
from nested_learning.planning.footprint import activations
from nested_learning.planning.hardware import PEAKS, peak

VOCAB = 61
NEXT = NextTokenConfig(name="next_token")
pytestmark = pytest.mark.filterwarnings("ignore:TF32 acceleration")
# width, heads, layers, tokens, and what chunks are cut to, so that few tokens have many of them
SIZES = [(16, 2, 2, 9, 2), (24, 3, 1, 3, 2)]
# those whose first size runs by default; what the others' says these say as well, sooner
QUICK = ("transformer", "deltanet", "titans_lmm", "titans_mac", "hope", "lstm")
CHUNKS = ("model.memory.chunk", "model.generating_chunk", "model.segment", "model.window")


def configure(name: str, size: tuple[int, ...], *line: str):
    dim, heads, layers, _, chunk = size
    sizes = [f"model.dim={dim}", f"model.num_heads={heads}", f"model.num_layers={layers}"]
    config = make_job(open_option_files(None), [f"model={name}", *sizes, *line]).config
    for key in CHUNKS:
        owner = config.model.memory if "memory" in key and "memory" in vars(config.model) else config.model
        if (last := key.rpartition(".")[2]) in vars(owner) and vars(owner)[last] is not None:
            vars(owner)[last] = chunk
    return config


class Attention(TorchFunctionMode):
    """Adds up the operations of softmax attention, forward."""

    total = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is F.scaled_dot_product_attention:
            q, k, v = args[:3]
            self.total += 2 * math.prod(q.shape[:-1]) * k.shape[-2] * (q.shape[-1] + v.shape[-1])
        return function(*args, **(kwargs or {}))


def counted(config, num_tokens: int):
    """Return the FLOPs of a token, forward and total, without attention, and those of attention, forward."""
    model, tokens = config.model.build(VOCAB, seed=0), torch.arange(num_tokens)[None] % VOCAB
    solve = {torch.ops.aten.linalg_solve_triangular: lambda system, right, *_, **__: system[-1] * math.prod(right)}
    counters = [FlopCounterMode(display=False, custom_mapping=solve) for _ in range(2)]
    # the counter knows neither the CPU's fused attention nor its fused LSTM
    with sdpa_kernel(SDPBackend.MATH), torch.backends.mkldnn.flags(enabled=False), Attention() as attention:
        with counters[0]:
            step = config.objective.build()(model, Batch(tokens, tokens, tokens), model.init_state(1))
        with counters[1]:
            step.loss.backward()
    forward, backward = (counter.get_total_flops() for counter in counters)
    own = attention.total / num_tokens
    return forward / num_tokens - own, (forward + backward) / num_tokens - 3 * own, own


@pytest.mark.parametrize(
    ("name", "size"),
    [
        pytest.param(name, size, marks=pytest.mark.slow if size == SIZES[0] and name not in QUICK else ())
        for name in CHOICES["model"]
        for size in SIZES
    ],
    ids=str,
)
def test_the_flops_of_every_model_equal_the_counted_ones(name, size):
    config, num_tokens = configure(name, size), size[3]
    known = flops(config.model, config.objective, VOCAB, num_tokens)
    forward, both, attention = counted(config, num_tokens)
    assert known.linear + known.memory == pytest.approx(both, rel=0.01)
    assert known.forward - known.attention / 3 == pytest.approx(forward, rel=0.01)
    if name in ("titans_mag", "titans_mal"):
        # a window is computed in blocks, which hold more than it
        assert known.attention / 3 < attention
    else:
        assert known.attention / 3 == pytest.approx(attention, rel=0.01)


def test_a_transformer_takes_6_flops_per_weight_and_12_per_attended_token_and_feature():
    config = configure("transformer", (32, 2, 3, 0, 0))
    known = flops(config.model, config.objective, VOCAB, seq_len=1024)
    with torch.device("meta"):
        weights = parameters_in_products(config.model.build(VOCAB, 0))
    assert known.linear == 6 * weights and known.memory == 0
    assert known.attention == 12 * 3 * 32 * 1024
    assert known.causal == 12 * 3 * 32 * 512.5
    assert known.total == known.linear + known.attention
    assert known.head == 2 * 32 * VOCAB


def test_recomputed_logits_are_not_counted():
    whole, chunked = (configure("hope", SIZES[0], f"objective.chunk={chunk}") for chunk in ("null", "8"))
    assert flops(chunked.model, chunked.objective, VOCAB, 17) == flops(whole.model, whole.objective, VOCAB, 17)


def test_a_window_bounds_the_attended_tokens():
    config = configure("transformer", (32, 2, 3, 0, 64), "model.window=8")
    known = flops(config.model, config.objective, VOCAB, seq_len=1024)
    assert known.attention == 12 * 3 * 32 * 64
    assert known.causal == pytest.approx(12 * 3 * 32 * sum(min(t + 1, 64) for t in range(1024)) / 1024)


def test_tokens_attend_to_the_previous_segment_and_all_persistent_tokens():
    config = configure("titans_mac", (32, 2, 3, 0, 8), "model.num_persistent=4").model
    visible = [4 + 2 * (t % 8 + 1) for t in range(20)]
    assert config.attended(20)[1] == pytest.approx(sum(visible) / 20)


def test_the_updates_of_taught_levels_are_counted():
    levels = "[{name: fast, period: 2, context: {rule: gd, lr: 0.05}}, {name: slow, period: 0}]"
    config = configure("deltanet", SIZES[0], "objective=online", f"model.levels={levels}")
    known = flops(config.model, config.objective, VOCAB, 11)
    assert known.linear + known.memory == pytest.approx(counted(config, 11)[1], rel=0.01)
    assert known.linear + known.memory > 1.2 * sum(flops(configure("deltanet", SIZES[0]).model, NEXT, VOCAB, 11)[:2])


def test_a_large_model_is_counted_without_being_built():
    config = configure("hope", (2048, 16, 24, 0, 64))
    known = flops(config.model, config.objective, 50304, seq_len=8192)
    assert 1e9 < known.linear < 2e10 and 0 < known.memory < known.linear


def test_mfu_has_two_conventions_and_is_unknown_where_the_peak_is():
    known = Flops(linear=6.0, memory=1.0, attention=2.0, causal=1.0, forward=3.0, head=1.0)
    assert utilisation(known, 100.0, 1000.0) == {"mfu_12": pytest.approx(0.9), "mfu_causal": pytest.approx(0.8)}
    assert utilisation(known, 100.0, None) == {"mfu_12": None, "mfu_causal": None}
    assert most_operations(torch.device("cpu"), "float32", 2) is None


def test_the_peak_of_several_devices_is_their_number_times_the_peak_of_the_dtype(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100-SXM4-80GB")
    device = torch.device("cuda", 0)
    assert most_operations(device, "bfloat16", 8) == 8 * 312e12
    assert most_operations(device, "float32", 1) == 19.5e12
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    assert most_operations(device, "float32", 1) == 156e12
    assert most_operations(device, "float8", 1) is None


def test_logits_computed_twice_are_counted_once():
    model = configure("transformer", SIZES[1]).model
    twice = NextTokenConfig(name="next_token", chunk=2)
    assert flops(model, twice, VOCAB, 8) == flops(model, NEXT, VOCAB, 8)


def test_the_peak_of_a_known_device_and_dtype_is_returned_and_none_otherwise():
    assert peak("NVIDIA H100 80GB HBM3", "bfloat16") == peak("H100", "bfloat16") == 989.4e12
    assert peak("NVIDIA H100 PCIe", "bfloat16") == 756e12
    assert peak("NVIDIA H200", "float8") == 1978.9e12
    assert peak("NVIDIA A100-SXM4-80GB", "float8") is None
    assert peak("Intel(R) Xeon(R)", "float32") is None
    assert peak("NVIDIA L40S", "bfloat16") != peak("NVIDIA L4", "bfloat16")
    for name, by_dtype in PEAKS:
        assert list(by_dtype.values()) == sorted(by_dtype.values()), name


def test_reconstruct_is_counted_on_whole_rows_whose_positions_divide_the_logits():
    lines = ["objective=reconstruct", "data=mad", "data.task=compression", "data.length=32"]
    config = configure("transformer", (16, 2, 2, 32, 2), *lines)
    length, vocab_size = 32, 512
    known = flops(config.model, config.objective, vocab_size, length)
    # the head and everything else are those of next_token on the same row
    assert known.head == flops(config.model, NEXT, vocab_size, length).head
    assert known.linear == flops(config.model, NEXT, vocab_size, length).linear
    assert activations(config.model, config.objective, vocab_size, length, torch.float32).row > 0
