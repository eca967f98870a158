"""The examples in the docstrings of the public functions run."""

import doctest
import sys

import numpy as np
import pytest
import torch
from torch import nn

import evenslice

NAMES = (
    "audit build_model evaluate initialise_stem mirror_stem open_volume save_model save_volume "
    "segment uniform_stem"
)
DOORS = NAMES.split()


@pytest.mark.parametrize("name", DOORS)
def test_the_example_of_a_public_function_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    function = getattr(evenslice, name)
    known = vars(sys.modules[function.__module__]) | {"np": np, "torch": torch, "nn": nn}
    (example,) = doctest.DocTestFinder().find(function, name, globs=known)
    assert example.examples
    runner = doctest.DocTestRunner()
    assert runner.run(example).failed == 0
