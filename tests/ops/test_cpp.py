"""The operators in C++ give what torch gives: values, every gradient, every design, and gradients of gradients."""

from dataclasses import replace

import pytest
import torch
from ops import test_self_modifying
from ops.test_memory import CHUNK, LENGTHS, MATRICES, Inputs, make_design, worst

from nested_learning.errors import ConfigError
from nested_learning.ops import cpp
from nested_learning.ops.associative import associative
from nested_learning.ops.backend import resolve
from nested_learning.ops.memory import naive_associative

CPU = torch.device("cpu")
needs_operators = pytest.mark.skipif(cpp.missing(CPU) is not None, reason=f"no operators here: {cpp.missing(CPU)}")


@needs_operators
@pytest.mark.parametrize("choice", MATRICES, ids=lambda choice: "-".join(map(str, choice)))
@pytest.mark.parametrize("momentum", [False, True], ids=["plain", "momentum"])
def test_the_operator_equals_the_token_loop_in_values_and_gradients(choice, momentum):
    design = make_design(*choice)
    for t, on_base, position in [*((t, False, 0) for t in LENGTHS), (27, True, 3), (2, True, 3), (21, True, 3)]:
        fused = Inputs(t, 1, momentum, on_base, position, torch.float64).run(
            associative, replace(design, backend="cpp")
        )
        naive = Inputs(t, 1, momentum, on_base, position, torch.float64).run(naive_associative, design)
        assert worst(fused, naive) < 1e-12, (t, on_base, position)


@needs_operators
def test_single_precision_stays_within_two_millionths_of_double():
    for choice in MATRICES:
        design = make_design(*choice)
        single = Inputs(63, 1, True, False, 0, torch.float32).run(associative, replace(design, backend="cpp"))
        double = Inputs(63, 1, True, False, 0, torch.float64).run(naive_associative, design)
        assert worst(single, double) < 2e-6, choice


@needs_operators
@pytest.mark.parametrize("momentum", ["none", "gate"])
def test_self_modifying_memories_equal_their_token_loop(momentum):
    design = test_self_modifying.make_design(momentum=momentum, chunks=(4, CHUNK))
    with_operators = replace(
        design,
        generating=replace(design.generating, backend="cpp"),
        read=replace(design.read, backend="cpp"),
    )
    test_self_modifying.assert_equal_to_the_loop(with_operators, ("key", "value", "gates"), 1, 30)


@needs_operators
@pytest.mark.parametrize("choice", [MATRICES[0], MATRICES[7]])
def test_the_gradient_itself_can_be_differentiated(choice):
    results = []
    for backend in ("cpp", "eager"):
        inputs, design = Inputs(21, 1, True, True, 3, torch.float64), replace(make_design(*choice), backend=backend)
        with_graph = inputs.run(associative, design, create_graph=True)
        gradients = with_graph[-len(inputs.leaves) :]
        slope = sum(gradient.sin().sum() for gradient in gradients)
        results.append(torch.autograd.grad(slope, inputs.leaves, materialize_grads=True, allow_unused=True))
    assert worst(*results) < 1e-12


@needs_operators
def test_strides_and_threads_change_no_bit():
    design = replace(make_design("l2", "gd", "token", "token", 1, False), backend="cpp")
    plain = Inputs(21, 1, True, False, 0, torch.float32).run(associative, design)
    apart = Inputs(21, 1, True, False, 0, torch.float32)
    for name in ("q", "k", "v"):
        dense = vars(apart)[name]
        vars(apart)[name] = dense.mT.contiguous().mT
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        moved = apart.run(associative, design)
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(x, y) for x, y in zip(plain, moved, strict=True))


@needs_operators
def test_the_operator_passes_the_checks_of_torch():
    inputs = Inputs(11, 1, True, True, 3, torch.float64)
    with torch.no_grad():
        arguments = (*(x.detach() for x in (inputs.q, inputs.k, inputs.v)), *inputs.logits)
    matrices = (inputs.reference[0], inputs.weight[0], inputs.momentum[0], inputs.base[0])
    choices = ("l2", False, "token", "token", CHUNK, 3, True)
    torch.library.opcheck(torch.ops.nested_learning.matrix_forward, (*arguments, *matrices, *choices))


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    """Compile into an empty folder, and forget what was compiled before and after."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cpp.library.cache_clear(), cpp.library_path.cache_clear()
    yield tmp_path
    cpp.library.cache_clear(), cpp.library_path.cache_clear()


def test_without_a_compiler_the_backend_is_torch_and_the_log_says_why(monkeypatch, empty_cache):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(empty_cache))
    assert resolve("auto", CPU) == (
        "eager",
        "memories are computed by torch: no C++ compiler was found (CXX, c++, g++ or clang++)",
    )
    with pytest.raises(ConfigError, match=r"backend=cpp: no C\+\+ compiler.*use backend=eager"):
        resolve("cpp", CPU)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("false", "false ended with status 1: it says nothing"),
        ("env false", "env false ended with status 1: it says nothing"),
        ("true", "true ended without an error, and compiled nothing"),
        ("no_such_compiler -m64", "CXX=no_such_compiler -m64: no such program: no_such_compiler"),
        ("env no_such_compiler", "status 127: env: "),
        ("g++ '", "CXX=g++ ': cannot be split into words (No closing quotation)"),
        ("BROKEN", "cannot be run (Exec format error)"),
        ("/tmp", "CXX=/tmp: no such program: /tmp"),
    ],
)
def test_a_compiler_that_does_not_work_is_named_with_its_reason(monkeypatch, empty_cache, given, reason):
    if given == "BROKEN":
        broken = empty_cache / "cxx"
        broken.write_text("no program")
        broken.chmod(0o755)
        given = str(broken)
    monkeypatch.setenv("CXX", given)
    found = cpp.missing(CPU)
    assert found is not None and reason in found and "\n" not in found


@needs_operators
@pytest.mark.parametrize("given", ["", " ", "g++", "env g++", "g++ -DUNUSED='1 2'"])
def test_a_compiler_may_have_arguments(monkeypatch, given):
    monkeypatch.setenv("CXX", given)
    assert b"__VERSION__" in cpp._run_compiler("-dM", "-E", "-x", "c++", "/dev/null")


def test_a_failed_compilation_is_an_error_of_one_line(monkeypatch, empty_cache):
    monkeypatch.setattr(cpp, "FLAGS", ("--no-such-flag",))
    reason = cpp.missing(CPU)
    assert reason is not None and "C++ operators" in reason and "\n" not in reason


def test_the_operators_are_for_the_cpu_only():
    assert resolve("auto", torch.device("meta"))[0] == "eager"
