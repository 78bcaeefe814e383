"""The functions of every rule in the table, imported from the file with the rule's name."""

from importlib import import_module

from nested_learning.ops.rules import RULES
from nested_learning.ops.rules.rule import RuleFunctions


def find_functions(name: str) -> RuleFunctions:
    """Import `ops/rules/<name>.py` and return its functions `init_<name>` and `<name>`."""
    names = vars(import_module(f"nested_learning.ops.rules.{name}"))
    return RuleFunctions(names[f"init_{name}"], names[name])


# imported at once, not on first use: torch.compile can trace a dictionary lookup but not an import
FUNCTIONS = {name: find_functions(name) for name in RULES}
