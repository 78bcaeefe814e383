"""The metrics of class-incremental learning on classifiers with a known outcome."""

import pytest
from shared import shared

from nested_learning.data.tasks.classes import ClassesConfig
from nested_learning.evals.continual.transfer import transfer
from scripts.experiments.class_incremental import learners


@pytest.mark.slow
def test_joint_training_remembers_fine_tuning_forgets_and_a_memory_keeps_most():
    folder = shared("continual/clinc150")
    paths = {"path": str(folder / "train.jsonl"), "validation_path": str(folder / "val.jsonl")}
    texts = learners.Texts(ClassesConfig(**paths).build(0))
    ways = {
        "joint": learners.Learner(is_joint=True),
        "sequential": learners.Learner(),
        "memory": learners.Learner(kind="memory", rate=0.03),
    }
    metrics_of = {name: transfer(learners.learn(way, texts, 0)[0]) for name, way in ways.items()}
    accuracy = {name: metrics["accuracy"].metric().value for name, metrics in metrics_of.items()}
    assert accuracy["joint"] >= 0.75
    assert accuracy["sequential"] <= 0.3 and metrics_of["sequential"]["bwt"].metric().value <= -0.5
    assert accuracy["memory"] >= accuracy["sequential"] + 0.3
