"""Fixtures of the tests of the report."""

import pytest
from made_audits import audit_of, method_of, window_of

from evenslice.evidence.stats import Interval
from evenslice.report.page import Page, Row


@pytest.fixture
def make_window():
    return window_of


@pytest.fixture
def leaning():
    methods = {
        "gradient": method_of((0.2628, 0.5487, 0.1885), 0.0061),
        "integrated-gradients": method_of((0.241, 0.578, 0.181), 0.009),
        "ablation": method_of((0.214, 0.604, 0.182), 0.031, "inconclusive"),
        "shapley": method_of((0.222, 0.597, 0.181), 0.021),
    }
    return audit_of(methods, lag=Interval(0.0015, 0.0005, 0.0025))


@pytest.fixture
def symmetric():
    methods = {
        "gradient": method_of((0.24896, 0.50193, 0.24911), 0.0009, "symmetric"),
        "ablation": method_of((0.2113, 0.5766, 0.2121), 0.008, "symmetric"),
    }
    return audit_of(methods, "symmetric")


@pytest.fixture
def page(leaning, symmetric):
    return Page(
        title="Two ways to start the same model",
        rows=[Row("rgb", leaning, 0.8731, 0.7748), Row("green", symmetric, 0.8724, 0.7737)],
        windows=[
            window_of("rgb", (0.263, 0.549, 0.189)),
            window_of("green", (0.249, 0.502, 0.249)),
        ],
        facts={"Volume": "demo volume, 60 x 256 x 256", "Training steps": "400"},
        command="evenslice demo ./evenslice-demo --seed 7",
        intro="One network trained twice on the same slices.",
    )
