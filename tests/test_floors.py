"""A file imports its own folder or a lower floor; files are small; few files import some packages."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "nested_learning"
MAX_FILE, MAX_FUNCTION, MAX_PARAMETERS = 400, 60, 8

# from the lowest floor up; a name is a folder or a file of the package; files of one floor do not import each other; a
# file of a folder may have its own floor, as `phase.config`; the table in docs/concepts.md is this list
FLOORS: list[set[str]] = [
    {"errors", "level", "seeds", "shapes", "signals", "tree", "version"},
    {"files", "ops", "streams", "typed"},
    {"launcher", "nn", "phase.config"},
    {"model", "optim", "world"},
    {"data", "logger"},
    {"inference"},
    {"checkpoint", "objective"},
    {"planning"},
    {"train"},
    {"evals"},
    {"config"},
    {"hub", "report"},
    {"phase"},
    {"command"},
    {"__main__", "lm_eval"},
]
# the library's public names, and Session.open; both import inside a function
UPWARD = {
    ("nested_learning", "nested_learning.hub.pretrained"),
    ("nested_learning", "nested_learning.inference.session"),
    ("nested_learning.inference.session", "nested_learning.hub.open_run"),
}

# package -> the files that may import it
RESERVED = {
    "torch.distributed": {
        "world/joining.py",
        "world/reduction.py",
        "world/sharding.py",
        "world/storage.py",
        "world/world.py",
    },
    "hydra": {"command/compose.py", "command/main.py", "command/overrides.py"},
    "omegaconf": {"command/compose.py", "command/main.py", "config/schema.py"},
    "wandb": {"logger/wandb.py"},
    "tensorboard": {"logger/tensorboard.py"},
    "torch.utils.tensorboard": {"logger/tensorboard.py"},
    "tokenizers": {"data/tokenizers/bpe.py"},
    "transformers": {"hub/transformers.py"},
    "tiktoken": {"data/tokenizers/bpe.py"},
    "pyarrow": {"data/text/readers.py"},
    "zstandard": {"data/text/readers.py"},
    "datasets": {"data/text/readers.py"},
    "lm_eval": {"evals/harness/harness.py", "evals/harness/lm.py", "lm_eval.py"},
    "sacrebleu": {"evals/language/translation.py"},
    "matplotlib": {"report/plots.py"},
    "triton": {"ops/triton/gates.py", "ops/triton/scans.py", "ops/triton/systems.py", "ops/triton/tiles.py"},
    "fla": {"ops/fla.py"},
    "torchao": {"train/float8.py"},
    "joblib": {"launcher/joblib.py"},
    "submitit": {"launcher/submitit.py"},
    "pickle": set(),
}
OPTIONAL = {
    "wandb",
    "tensorboard",
    "torch.utils.tensorboard",
    "tokenizers",
    "tiktoken",
    "pyarrow",
    "zstandard",
    "datasets",
    "transformers",
    "matplotlib",
    "fla",
    "torchao",
    "joblib",
    "submitit",
    "lm_eval",
    "sacrebleu",
}

FILES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """Return the path from the package, such as `ops/rules.py`."""
    return path.relative_to(PACKAGE).as_posix()


@cache
def parse(path: Path) -> ast.Module:
    """Return the syntax tree of a file, parsed once."""
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path, *, only_top: bool = False) -> Iterator[str]:
    """Name every module that a file imports when it runs, and every name it takes from one as `module.name`."""
    tree = parse(path)
    for node in tree.body if only_top else _running(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree without the parts that only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and isinstance(child.test, ast.Name) and child.test.id == "TYPE_CHECKING":
            continue
        yield child
        yield from _running(child)


def module_of(path: Path) -> str:
    """Return the name that a file is imported by."""
    names = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


MODULES = {module_of(path): path for path in FILES}


def known(path: Path) -> set[str]:
    """Return the files of the package that a file imports, those inside its functions too."""
    found = set()
    for name in imports(path):
        module = name if name in MODULES else name.rpartition(".")[0]
        if module in MODULES:
            found.add(module)
    return found


def floor(module: str) -> int:
    """Return the number of a file's floor; every file of the package needs one."""
    parts = module.split(".")
    # a file's own entry counts more than that of its folder
    for name in (".".join(parts[1:3]), parts[1]):
        found = [number for number, names in enumerate(FLOORS) if name in names]
        assert len(found) <= 1, f"{name} belongs to one floor of FLOORS"
        if found:
            return found[0]
    raise AssertionError(f"{parts[1]} belongs to one floor of FLOORS")


def test_a_file_imports_its_own_folder_or_a_lower_floor() -> None:
    wrong = [
        f"{module} imports {other}, which is not on a lower floor"
        for module in MODULES.keys() - {"nested_learning"}
        for other in known(MODULES[module]) - {"nested_learning"}
        if module.split(".")[1] != other.split(".")[1] and (module, other) not in UPWARD
        if floor(other) >= floor(module)
    ]
    assert not wrong, "\n".join(wrong)


def test_no_files_import_each_other_in_a_cycle() -> None:
    graph = {
        module: {other for other in known(path) if (module, other) not in UPWARD} for module, path in MODULES.items()
    }
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_some_packages_are_imported_by_few_files() -> None:
    wrong = [
        f"{name_of(path)} imports {module}; only {sorted(files)} may"
        for path in FILES
        for module in imports(path)
        for package, files in RESERVED.items()
        if f"{module}.".startswith(f"{package}.") and name_of(path) not in files
    ]
    assert not wrong, "\n".join(wrong)


def test_packages_that_may_be_missing_are_imported_inside_functions() -> None:
    wrong = [
        f"{name_of(path)} imports {module} at its top"
        for path in FILES
        for module in imports(path, only_top=True)
        if any(f"{module}.".startswith(f"{package}.") for package in OPTIONAL)
    ]
    assert not wrong, "\n".join(wrong)


def functions(path: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield every function of a file, and its position."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{name_of(path)}:{node.lineno} {node.name}", node


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Name the parameters of a function that a caller may give."""
    found = [each.arg for each in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    return [each for each in found if each not in ("self", "cls")]


def test_files_functions_and_signatures_are_small() -> None:
    files = [(name_of(path), len(path.read_text(encoding="utf-8").splitlines())) for path in FILES]
    all_functions = [pair for path in FILES for pair in functions(path)]
    long = [where for where, node in all_functions if (node.end_lineno or 0) - node.lineno >= MAX_FUNCTION]
    wide = [where for where, node in all_functions if len(parameters(node)) > MAX_PARAMETERS]
    assert [name for name, num_lines in files if num_lines > MAX_FILE] == [], f"files of more than {MAX_FILE} lines"
    assert not long, f"functions of more than {MAX_FUNCTION} lines: {long}"
    assert not wide, f"functions of more than {MAX_PARAMETERS} parameters: {wide}"


def public(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Yield the public functions, classes and methods of a file."""
    for node in tree.body:
        for each in [node, *(node.body if isinstance(node, ast.ClassDef) else [])]:
            if isinstance(each, ast.FunctionDef | ast.ClassDef) and not each.name.startswith("_"):
                yield each


def test_everything_public_has_a_docstring() -> None:
    files = [name_of(path) for path in FILES if parse(path).body and not ast.get_docstring(parse(path))]
    parts = [
        f"{name_of(path)}:{each.lineno} {each.name}"
        for path in FILES
        for each in public(parse(path))
        if not ast.get_docstring(each)
    ]
    assert not files + parts, "\n".join(files + parts)


def test_errors_are_never_swallowed_and_classes_never_probed() -> None:
    nodes = [(path, node) for path in FILES for node in ast.walk(parse(path))]
    swallowed = [
        f"{name_of(path)}:{node.lineno}"
        for path, node in nodes
        if isinstance(node, ast.ExceptHandler) and node.type is None
    ]
    probed = [
        f"{name_of(path)}:{node.lineno} {node.func.id}"
        for path, node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if node.func.id in ("hasattr", "getattr", "setattr")
    ]
    assert not swallowed + probed, "\n".join(swallowed + probed)


def test_every_part_of_the_package_has_a_floor() -> None:
    parts = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in FILES} - {"__init__"}
    assert parts == {name for name in set().union(*FLOORS) if "." not in name}


def test_the_table_of_the_documents_is_the_list_of_floors() -> None:
    page = (PACKAGE.parent / "docs" / "concepts.md").read_text(encoding="utf-8")
    lines = page.partition("## Floors")[2].partition("\n## ")[0].splitlines()
    table = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ") and line[2].isdigit()]
    names = [", ".join(f"`{name.replace('.', '/')}`" for name in sorted(floor)) for floor in FLOORS]
    assert table == [[str(number), names[number]] for number in reversed(range(len(FLOORS)))]
