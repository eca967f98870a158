"""Running studies: rows, failures, going on, sharing a folder, and what the rows say together."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from evenslice import save_volume
from evenslice.errors import BadInputError
from evenslice.options import validated
from evenslice.study.findings import findings_of
from evenslice.study.plan import StudyTable
from evenslice.study.results import Study
from evenslice.study.run import as_csv, study

TEXT = """
name = "tiny"
[train]
weights = "none"
encoder_depth = 3
steps = 2
batch = 2
crop = 32
validation_runs = 1
[audit]
windows = 8
tile = 32
[datasets.grey]
raw = "raw.tif"
labels = "labels.tif"
test = "7:9"
[[grid]]
dataset = "grey"
init = ["rgb", "green"]
seed = [0, 1]
"""
CONTRACT = (
    "arch,encoder,weights,init,tie,dataset,target,seed,dice,iou,share_0,share_1,share_2,"
    "mirror_index,mirror_low,mirror_high,seconds,failure"
)


@pytest.fixture
def place(tmp_path, monkeypatch, grey):
    """A folder with a volume and a study of four cells."""
    monkeypatch.chdir(tmp_path)
    save_volume("raw.tif", grey)
    save_volume("labels.tif", (grey > 128).astype(np.uint8))
    (tmp_path / "s.toml").write_text(TEXT.replace('weights = "none"', 'weights = "imagenet"'))
    return tmp_path


def table(folder):
    """The rows without what a clock says."""
    with (folder / "rows.csv").open() as file:
        return [
            {key: value for key, value in row.items() if key != "seconds"}
            for row in csv.DictReader(file)
        ]


@pytest.mark.slow
def test_a_row_a_cell_and_what_they_say_together(place):
    text = (place / "s.toml").read_text().replace("seed = [0, 1]", "seed = 0")
    (place / "s.toml").write_text(text + '[[grid]]\ndataset = "grey"\nencoder = "resnet19"\n')
    found = study("s.toml", "out").to_dict()
    assert (found["cells"], found["done"], found["failed"]) == (3, 3, 1)
    rows = table(place / "out")
    assert (place / "out" / "rows.csv").read_text().splitlines()[0].startswith(CONTRACT)
    assert [row["init"] for row in rows[:2]] == ["rgb", "green"]
    assert "resnet19" in rows[2]["failure"]
    assert rows[2]["dice"] == ""
    for row in rows[:2]:
        assert row["failure"] == ""
        assert sum(float(row[f"share_{slot}"]) for slot in range(3)) == pytest.approx(1)
        assert float(row["mirror_low"]) <= float(row["mirror_index"]) <= float(row["mirror_high"])
        assert 0 <= float(row["iou"]) <= float(row["dice"]) <= 1
        assert row["target"] == "foreground"
    before = {row["treatment"]: float(row["mirror_index_before"]) for row in rows[:2]}
    assert before["green"] == pytest.approx(0, abs=1e-6)
    assert abs(before["rgb"]) > 0.05
    assert {one["treatment"] for one in found["comparisons"]} == {"green"}
    curve = found["curves"][0]["points"]
    assert [point["steps"] for point in curve] == [0, 2]
    assert curve[0]["mirror_index"] == float(rows[0]["mirror_index_before"])
    assert curve[-1]["mirror_index"] == float(rows[0]["mirror_index"])
    assert list((place / "out").rglob("*.safetensors")) == []
    assert json.loads((place / "out" / "study.json").read_text())["rows"] == json.loads(
        json.dumps(found["rows"])
    )


@pytest.mark.slow
def test_a_public_data_set_is_found_in_its_folder_and_scored_on_its_own_test_volume(
    place, grey, monkeypatch
):
    import h5py

    monkeypatch.setenv("EVENSLICE_DATA", str(place / "data"))
    text = (place / "s.toml").read_text().replace('dataset = "grey"', 'dataset = "SNEMI3D"')
    (place / "s.toml").write_text(
        text.replace('["rgb", "green"]', '"green"').replace("[0, 1]", "0")
    )
    folder = place / "data" / "snemi3d"
    folder.mkdir(parents=True)
    numbers = np.arange(1, 13, dtype=np.uint32).reshape(3, 4) + 70000
    neurons = np.kron(numbers, np.ones((9, 24, 24), np.uint32))[:9, :64, :96]
    for name in ("train", "test"):
        save_volume(folder / f"{name}-input.tif", grey)
    save_volume(folder / "train-labels.tif", neurons)
    with h5py.File(folder / "test-labels.h5", "w") as file:
        file["main"] = neurons[:, ::-1]
    [row] = study("s.toml", "out").rows
    assert (row["failure"], row["target"], row["dataset"]) == ("", "boundary", "SNEMI3D")
    assert 0 < row["dice"] < 1
    (folder / "test-labels.h5").unlink()
    with pytest.raises(
        BadInputError,
        match=r"test-labels.h5 does not exist\), .*evenslice data fetch 'SNEMI3D' --to",
    ):
        study("s.toml", "out")


def test_only_pending_cells_run_and_failures_on_request(place):
    text = (place / "s.toml").read_text()
    (place / "s.toml").write_text(
        text.replace(
            'init = ["rgb", "green"]\nseed = [0, 1]', 'init = "green"\nencoder = "resnet19"'
        )
    )
    study("s.toml", "out")
    (place / "out" / "cells").chmod(0o755)
    first = table(place / "out")
    assert "resnet19" in first[0]["failure"]
    row_file = next((place / "out" / "cells").glob("*/row.json"))
    written = row_file.stat().st_mtime_ns
    study("s.toml", "out")
    assert row_file.stat().st_mtime_ns == written
    study("s.toml", "out", retry=True)
    assert row_file.stat().st_mtime_ns > written
    assert table(place / "out") == first


def test_a_folder_of_something_else_is_refused(place):
    study_text = (place / "s.toml").read_text()
    (place / "other").mkdir()
    (place / "other" / "file").write_text("mine")
    with pytest.raises(BadInputError, match="holds no study, expected a new folder"):
        study("s.toml", "other")
    (place / "taken").mkdir()
    (place / "taken" / "name.txt").write_text("large\n")
    with pytest.raises(BadInputError, match="holds the study 'large', expected 'tiny'"):
        study("s.toml", "taken")
    (place / "s.toml").write_text(study_text.replace('"raw.tif"', '"none.tif"'))
    with pytest.raises(BadInputError, match=r"grey is not complete \(.*none.tif does not exist"):
        study("s.toml", "out")
    assert {p.name for p in place.iterdir()} == {
        "labels.tif",
        "other",
        "raw.tif",
        "s.toml",
        "taken",
    }


RUN = """
import sys
import torch
torch.set_num_threads(1)
from evenslice.study.run import study
study("s.toml", sys.argv[1])
"""


def start(out):
    return subprocess.Popen(
        [sys.executable, "-c", RUN, out], env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


@pytest.mark.slow
def test_killed_and_run_again_gives_the_same_table(place):
    (place / "s.toml").write_text((place / "s.toml").read_text().replace("steps = 2", "steps = 60"))
    study("s.toml", "whole")
    rng = np.random.default_rng(0)
    for _ in range(6):
        process = start("killed")
        time.sleep(float(rng.uniform(4, 12)))
        process.send_signal(signal.SIGKILL)
        process.wait()
    study("s.toml", "killed")
    assert table(place / "killed") == table(place / "whole")


@pytest.mark.slow
def test_two_processes_share_a_folder(place):
    study("s.toml", "alone")
    together = [start("shared"), start("shared")]
    assert [process.wait() for process in together] == [0, 0]
    study("s.toml", "shared")
    assert table(place / "shared") == table(place / "alone")
    assert len(list((place / "shared" / "cells").glob("*/row.json"))) == 4


@pytest.mark.slow
def test_workers_of_a_cluster_share_the_cells(place):
    distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
    study("s.toml", "alone")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        study("s.toml", "shared", scheduler=cluster.scheduler_address)
    assert table(place / "shared") == table(place / "alone")


def row(treatment, seed, index, dice, dataset="a", network="unet"):
    facts = {"treatment": treatment, "network": network, "dataset": dataset, "seed": seed}
    scores = {"dice": dice, "iou": dice / 2, "failure": "", "context": f"{network}{dataset}{seed}"}
    return facts | scores | {"mirror_index": index, "mirror_index_before": 2 * index}


def found(rows, **changes):
    text = {"name": "x", "grid": [{"dataset": "a"}]} | changes
    return findings_of(rows, validated(StudyTable, text, "x"))


def test_findings_by_hand():
    measured = {
        "rgb": [(-0.2, 0.8), (-0.22, 0.81), (-0.18, 0.79)],
        "green": [(0.01, 0.802), (-0.01, 0.808), (0.0, 0.791)],
    }
    rows = [row(t, s, *pair) for t, pairs in measured.items() for s, pair in enumerate(pairs)]
    result = found(rows)
    lean = {(one.treatment, one.when): one for one in result.lean if one.network == "all"}
    assert lean["rgb", "after"].value == pytest.approx(-0.2)
    assert lean["rgb", "before"].value == pytest.approx(-0.4)
    verdicts = [lean[name, "after"].verdict for name in ("rgb", "green")]
    assert verdicts == ["asymmetric", "symmetric"]
    change = {one.outcome: one for one in result.comparisons}
    assert change["lean"].value == pytest.approx(np.mean([0.01 - 0.2, 0.01 - 0.22, 0 - 0.18]))
    assert change["lean"].verdict == "lower"
    assert change["dice"].value == pytest.approx(np.mean([0.002, -0.002, 0.001]))
    assert change["dice"].verdict == "equivalent"
    assert change["dice"].p_signflip == 1.0, "no signs bring the sum of 2, -2, 1 nearer to 0"
    assert [claim.name for claim in result.claims] == ["persists", "restores", "keeps accuracy"]
    assert [claim.verdict for claim in result.claims] == ["yes", "yes", "yes"]


def test_one_slice_has_no_index_and_its_dice_is_compared():
    rows = [row("rgb", s, -0.2, 0.8 + 0.01 * s) for s in range(3)]
    none = {"mirror_index": None, "mirror_index_before": None}
    for s in range(3):
        rows.append(row("centre, one slice", s, 0, 0.7 + 0.01 * s + 0.001 * s**2) | none)
    result = found(rows)
    assert {one.treatment for one in result.lean} == {"rgb"}
    dice, iou = result.comparisons
    assert (dice.outcome, iou.outcome) == ("dice", "iou")
    assert dice.value == pytest.approx(-0.1 + 0.005 / 3)
    assert dice.verdict == "lower"


def test_findings_against_the_claims_are_said():
    rows = [row("rgb", s, 0.001 * s, 0.8 + 0.001 * s) for s in range(3)]
    rows += [row("green", s, 0.2 + 0.001 * s, 0.7 + 0.002 * s) for s in range(3)]
    assert [claim.verdict for claim in found(rows).claims] == ["no", "no", "no"]


def test_few_or_no_cells_decide_nothing():
    rows = [row("rgb", 0, -0.2, 0.8), row("green", 0, 0.0, 0.8)]
    result = found(rows)
    assert [claim.verdict for claim in result.claims] == ["undecided"] * 3
    json.dumps(Study(**result._asdict()).to_dict(), allow_nan=False)
    assert [claim.verdict for claim in found([]).claims] == ["undecided"] * 3


def test_pairs_are_of_what_shares_the_rest_and_data_sets_are_blocks():
    rgb = [(0, -0.2, 0.8, "a"), (1, -0.2, 0.8, "a"), (0, -0.1, 0.5, "b")]
    green = [(0, 0.0, 0.81, "a"), (1, 0.0, 0.83, "a"), (0, 0.0, 0.6, "b"), (7, 0.0, 0.1, "b")]
    rows = [*(row("rgb", *one) for one in rgb), *(row("green", *one) for one in green)]
    dice = next(one for one in found(rows).comparisons if one.outcome == "dice")
    assert (dice.cells, dice.datasets, dice.value) == (3, 2, pytest.approx((0.02 + 0.1) / 2))


def test_comparisons_are_adjusted_over_the_treatments():
    rows = [
        row(t, s, v + 0.01 * s, 0.8)
        for t, v in (("rgb", -0.3), ("green", 0.05), ("mean", 0.06))
        for s in range(4)
    ]
    lean = [one for one in found(rows).comparisons if one.outcome == "lean"]
    smaller, larger = sorted(one.p for one in lean)
    assert sorted(one.p_holm for one in lean) == pytest.approx(
        sorted([2 * smaller, max(2 * smaller, larger)])
    )


def test_models_of_more_slices_have_more_columns():
    rows = [
        {"arch": "unet", "slices": 3, "share_0": 0.5},
        {"arch": "fpn", "slices": 5, "share_4": 0.1, "failure": ""},
    ]
    text = as_csv(rows).splitlines()
    assert "share_0,share_1,share_2,share_3,share_4,mirror_index" in text[0]
    assert text[0].split(",").count("share_0") == 1


PAIRED = [  # forward, reversed: two seeds
    ("green", 0, -0.142, 0.224),
    ("green", 1, -0.296, 0.337),
    ("rgb", 0, 0.016, 0.407),
    ("green, mirror tie", 0, 0.0, 0.0),
    ("mean", 0, 0.3, None),
]


def both_orders(sign):
    for treatment, seed, *pair in PAIRED:
        for order, index in zip(("", ", reversed order"), pair, strict=True):
            if index is not None:
                made = row(treatment + order, seed, 0.5, 0.8)
                yield made | {"mirror_index_ablation": sign * index, "mirror_index_x_before": 1.0}


@pytest.mark.parametrize("sign", [1, -1])
def test_the_index_is_taken_apart_by_its_causes(sign):
    causes = {one.treatment: one for one in found(list(both_orders(sign))).causes}
    assert list(causes) == ["green", "rgb", "green, mirror tie"]
    green, rgb, tied = causes.values()
    assert (green.method, green.network, green.dataset, green.seeds) == ("ablation", "unet", "a", 2)
    halves = [(-0.142 - 0.224) / 2, (-0.296 - 0.337) / 2], [0.041, 0.0205]
    for part, values in zip((green.data, green.slots), halves, strict=True):
        mean, half = sign * np.mean(values), 12.706 * np.std(values, ddof=1) / 2**0.5
        ends = [mean, mean - half, mean + half]
        assert [part.value, part.low, part.high] == pytest.approx(ends, abs=1e-4)
    assert green.spread == pytest.approx(np.std(halves[1], ddof=1))
    assert (rgb.data.value, rgb.data.low, rgb.spread) == (pytest.approx(-0.1955 * sign), None, None)
    assert tied.data.value == tied.slots.value == 0
