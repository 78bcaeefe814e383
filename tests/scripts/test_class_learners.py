"""A8: figures of class-incremental learning on classifiers whose fate is known."""

import pytest
from shared import shared

from nested_learning.data.tasks.classes import ClassesConfig
from nested_learning.evals.continual.transfer import transfer
from scripts.experiments.class_incremental import learners


@pytest.mark.slow
def test_who_learns_all_at_once_knows_who_is_fine_tuned_forgets_and_a_memory_keeps():
    folder = shared("continual/clinc150")
    paths = {"path": str(folder / "train.jsonl"), "validation_path": str(folder / "val.jsonl")}
    texts = learners.Texts(ClassesConfig(**paths).build(0))
    ways = {
        "joint": learners.Learner(is_joint=True),
        "sequential": learners.Learner(),
        "memory": learners.Learner(kind="memory", rate=0.03),
    }
    found = {name: transfer(learners.learn(way, texts, 0)[0]) for name, way in ways.items()}
    accuracy = {name: figures["accuracy"].metric().value for name, figures in found.items()}
    assert accuracy["joint"] >= 0.75
    assert accuracy["sequential"] <= 0.3 and found["sequential"]["bwt"].metric().value <= -0.5
    assert accuracy["memory"] >= accuracy["sequential"] + 0.3
