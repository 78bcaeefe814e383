"""The operators in C++: compiled on first use by the machine's compiler, cached, and called through ctypes.

The sources include no header of Python or torch: they compile in seconds, for this machine's CPU, and stay valid when
either is updated. Nothing is built at installation; a machine without a compiler computes with torch ("eager").
"""

import ctypes
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from nested_learning.errors import NestedLearningError
from nested_learning.shapes import Tensor

SOURCES = Path(__file__).parent / "csrc"
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-shared", "-fPIC", "-pthread")
TYPES = {torch.float32: "float", torch.float64: "double"}


def missing(device: torch.device) -> str | None:
    """Say why the operators cannot be used on `device`; None if they can, and then they are built and loaded."""
    if device.type != "cpu":
        return f"the C++ operators are for the CPU, not {device.type}"
    try:
        library()
    except NestedLearningError as error:
        return str(error)
    return None


def compiler() -> list[str]:
    """Return the command of the C++ compiler: `CXX`, which may have arguments, or else the first of the usual names.

    Raises NestedLearningError where there is none.
    """
    given = os.environ.get("CXX", "").strip()
    if not given:
        found = next((path for path in map(shutil.which, ("c++", "g++", "clang++")) if path), None)
        if found is None:
            raise NestedLearningError("no C++ compiler was found (CXX, c++, g++ or clang++)")
        return [found]
    try:
        program, *arguments = shlex.split(given)
    except ValueError as error:
        raise NestedLearningError(f"CXX={given}: cannot be split into words ({error})") from error
    if shutil.which(program) is None:
        raise NestedLearningError(f"CXX={given}: no such program: {program}")
    return [program, *arguments]


@functools.cache
def library() -> ctypes.CDLL:
    """Load the operators, after compiling them if they are not in the cache. Raises NestedLearningError."""
    path = library_path()
    if not path.exists():
        _compile(path)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise NestedLearningError(f"the C++ operators cannot be loaded: {error}") from error


@functools.cache
def library_path() -> Path:
    """Return the path of the compiled operators: another for other sources, compilers and instruction sets."""
    # with -march=native, predefined macros differ between compilers and between instruction sets: a home directory
    # may be shared by machines with different CPUs
    macros = _run_compiler("-dM", "-E", "-x", "c++", os.devnull)
    sources = b"".join(path.read_bytes() for path in sorted(SOURCES.iterdir()))
    digest = hashlib.sha256(sources + macros + " ".join(FLAGS).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "nested_learning" / f"operators_{digest}.so"


def _compile(path: Path) -> None:
    """Compile all sources to `path`. Several processes may do so at the same time."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            built = Path(folder) / path.name
            _run_compiler(*map(str, sorted(SOURCES.glob("*.cpp"))), "-o", str(built))
            if not built.exists():
                raise NestedLearningError(f"{shlex.join(compiler())} ended without an error, and compiled nothing")
            # atomic: another process sees the whole file or none
            built.replace(path)
    except OSError as error:
        raise NestedLearningError(f"the C++ operators cannot be written to {path.parent}: {error}") from error


def _run_compiler(*arguments: str) -> bytes:
    """Run the compiler with FLAGS and `arguments`; return what it prints. Raises NestedLearningError where it fails."""
    command = compiler()
    try:
        whole = [*command, *FLAGS, *arguments]
        done = subprocess.run(whole, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError as error:
        raise NestedLearningError(f"{shlex.join(command)} cannot be run ({error.strerror})") from error
    if done.returncode:
        lines = done.stderr.decode(errors="replace").splitlines()
        first = next((line for line in lines if "error" in line), " ".join(lines)[:200] or "it says nothing")
        raise NestedLearningError(
            f"the C++ operators do not compile here: {shlex.join(command)} ended with status {done.returncode}: {first}"
        )
    return done.stdout


def call(name: str, sizes: Sequence[int], views: Sequence[Tensor | None], arrays: Sequence[Tensor | None]) -> None:
    """Call the operator `name` for the dtype of its tensors.

    `views` are `[b h t d]` with a contiguous last dimension, `arrays` are contiguous; None passes a null pointer.
    """
    dtype = next(x.dtype for x in (*views, *arrays) if x is not None)
    assert all(x is None or x.dtype == dtype for x in (*views, *arrays)), "all tensors must have one dtype"
    assert all(x is None or x.stride(-1) == 1 for x in views)
    assert all(x is None or x.is_contiguous() for x in arrays)
    pointers = [None if x is None else x.data_ptr() for x in (*views, *arrays)]
    strides = [stride for x in views for stride in ((0, 0, 0) if x is None else x.stride()[:3])]
    function = library()[f"{name}_{TYPES[dtype]}"]
    function.restype = None
    function(
        (ctypes.c_int64 * len(sizes))(*sizes),
        (ctypes.c_void_p * len(pointers))(*pointers),
        (ctypes.c_int64 * len(strides))(*strides),
    )
