"""What changes how memories are computed reaches each of them, and nothing else of their designs."""

from dataclasses import replace

import pytest

from nested_learning.command.compose import make_job
from nested_learning.config.option_files import open_option_files
from nested_learning.nn.designs import redesign


@pytest.mark.parametrize("name", ["titans_lmm", "hope", "titans_mac"])
def test_every_memory_of_a_model_is_told_and_told_no_more(name):
    lines = [f"model={name}", "model.dim=16", "model.num_layers=2", "model.num_heads=2"]
    model = make_job(open_option_files(None), lines).config.model.build(29, seed=0)

    def designs():
        found = [module.design for module in model.modules() if "design" in vars(module)]
        return [each for found in found for each in ((found.generating, found.read) if name == "hope" else (found,))]

    before = designs()
    assert len(before) == (4 if name == "hope" else 2) and not any(design.recompute for design in before)
    redesign(model, recompute=True, backend="eager")
    assert designs() == [replace(design, recompute=True, backend="eager") for design in before]
