"""What intervals and verdicts promise, by simulation through the functions of the audit."""

import importlib.util
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "benchmarks" / "coverage.py"
spec = importlib.util.spec_from_file_location("coverage_benchmark", SOURCE)
simulation = importlib.util.module_from_spec(spec)
spec.loader.exec_module(simulation)
NORMAL, SKEWED = None, 2.0
RUNS = 1000


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("shape", [NORMAL, SKEWED], ids=["normal", "skewed"])
@pytest.mark.parametrize("blocks", [12, 20, 40])
def test_intervals_cover_as_promised_and_false_verdicts_at_the_margin_are_rare(blocks, shape):
    covered, symmetric, asymmetric = simulation.fixed(RUNS, blocks, shape)
    assert 0.93 <= covered <= 0.97
    assert symmetric < 0.05
    assert asymmetric < 0.05


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("shape", [NORMAL, SKEWED], ids=["normal", "skewed"])
@pytest.mark.parametrize("true", [0.0, 0.05, -0.05, 0.165])
def test_looking_again_and_again_keeps_the_promise_and_decides(true, shape):
    covered, verdicts, decided, _ = simulation.sequential(RUNS, true, shape)
    assert covered >= 0.95
    if abs(true) == simulation.MARGIN:
        assert max(verdicts.values()) < 0.05
    else:
        assert decided >= 0.90
        assert verdicts["symmetric" if true == 0 else "asymmetric"] >= 0.90


def test_a_few_runs_by_way_of_example():
    covered, symmetric, asymmetric = simulation.fixed(60, 20, NORMAL)
    assert covered > 0.85
    assert symmetric + asymmetric < 0.2
    assert simulation.sequential(10, 0.3, NORMAL)[1]["asymmetric"] == 1.0
