"""The shapes and types in every signature are true: checked at each call, which doubles a test's time."""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]

# small tests that call nearly every function with a shape in its signature
CHECKED = (
    "laws/test_document_laws.py",
    "laws/test_objective_laws.py",
    "laws/test_rule_laws.py",
    "inference/test_session.py",
    "nn/test_associative.py",
    "nn/test_context.py",
    "nn/test_hybrid.py",
    "objective/test_documents_apart.py",
    "ops/test_cpp.py",
    "ops/test_fla.py",
    "ops/test_sampling.py",
    "ops/test_memory_telemetry.py",
    "optim/test_inputs.py",
    "optim/test_settings.py",
)


def test_calls_keep_to_the_shapes_and_types_of_their_signatures():
    # jaxtyping decorates modules as they are imported, so it needs a process of its own
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider"),
            *("--jaxtyping-packages=nested_learning,beartype.beartype", *(str(TESTS / path) for path in CHECKED)),
        ],
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
