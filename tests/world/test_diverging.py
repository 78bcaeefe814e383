"""When the loss of one process is not finite, all decide the same, and the incident report has the other's numbers."""

import math

import pytest
from tiny import tiny
from together import together
from world.diverging import diverge

PLANS = {
    "ddp": {},
    "fsdp": {"world__parallel": "fsdp"},
    "deterministic": {"world__reduction": "deterministic"},
}
CASES = [(plan, policy) for plan in PLANS for policy in ("skip", "rollback")]


@pytest.fixture(scope="module")
def diverged(tmp_path_factory):
    """Train every case with two processes, once for all tests."""
    folder = tmp_path_factory.mktemp("diverging")
    cases = {
        f"{plan}_{policy}": tiny(
            folder, name=f"{plan}_{policy}", divergence=policy, save_every=2, micro_batches=2, **PLANS[plan]
        )
        for plan, policy in CASES
    }
    return folder, together(diverge, 2, cases)


@pytest.mark.parametrize(("plan", "policy"), CASES)
def test_all_processes_leave_out_the_same_steps_and_learn_the_same(diverged, plan, policy):
    folder, (first, second) = diverged
    skipped, loss, weights = first[f"{plan}_{policy}"]
    assert [skipped, loss, weights] == second[f"{plan}_{policy}"]
    assert skipped == [3, 5] and math.isfinite(loss) and all(math.isfinite(weight) for weight in weights)
    assert weights == first[f"{plan}_skip"][2], "going back ends where leaving out ends"
    page = (folder / "runs" / f"{plan}_{policy}" / "incident.md").read_text()
    assert page.count("## Step") == 2
    assert "`aten.log.default` in `blocks.1" in page and "process 1" in page
