"""Every name in the package and in scripts is defined, also inside annotations that are strings."""

import ast
import builtins
import symtable
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for folder in ("nested_learning", "scripts") for path in (ROOT / folder).rglob("*.py"))
# what a module has without defining it
IMPLICIT = {*dir(builtins), "__file__"}
# strings inside these subscripts are shapes and values, not types: Float[Tensor, "batch time"], Literal["online"]
NOT_TYPES = {"Bool", "Float", "Int", "Integer", "Literal", "Num", "Shaped", "UInt8"}


class _Unquoted(ast.NodeTransformer):
    """Replaces the strings of an annotation that are types by what they say."""

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        if isinstance(node.value, ast.Name) and node.value.id in NOT_TYPES:
            return node
        return self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.parse(node.value, mode="eval").body if isinstance(node.value, str) else node


def unquoted(text: str) -> str:
    """Return the source of a file, its string annotations replaced by the expressions in them."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation:
            node.annotation = _Unquoted().visit(node.annotation)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns:
            node.returns = _Unquoted().visit(node.returns)
    return ast.unparse(tree)


def undefined(text: str) -> set[str]:
    """Return the names that a file uses and nothing defines."""

    def tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
        yield table
        for child in table.get_children():
            yield from tables(child)

    every = list(tables(symtable.symtable(unquoted(text), "file", "exec")))
    top = {symbol.get_name() for symbol in every[0].get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    # a function may assign a name of the module with `global`
    top |= {symbol.get_name() for each in every for symbol in each.get_symbols() if symbol.is_declared_global()}
    used = {symbol.get_name() for each in every for symbol in each.get_symbols() if symbol.is_global()}
    # symtable calls a name that a module only reads at its top local, not global
    used |= {symbol.get_name() for symbol in every[0].get_symbols() if symbol.is_referenced()}
    return used - top - IMPLICIT


def test_every_name_is_defined() -> None:
    missing = [
        f"{path.relative_to(ROOT)} uses {name}, which is not defined"
        for path in FILES
        for name in sorted(undefined(path.read_text(encoding="utf-8")))
    ]
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize(
    "line", ["def f(x: 'Lost'): ...", "def f() -> list['Lost']: ...", "y: Lost = 1", "def f(): return Lost", "Lost()"]
)
def test_a_name_that_nothing_defines_is_noticed_wherever_it_is_used(line: str) -> None:
    assert undefined(line) == {"Lost"}


@pytest.mark.parametrize(
    "line",
    [
        "from jaxtyping import Float\ndef f(x: Float[int, 'batch time']): ...",
        "def f(x: 'int | None'): print(x)",
    ],
)
def test_shapes_builtins_and_imports_are_names_that_exist(line: str) -> None:
    assert undefined(line) == set()
