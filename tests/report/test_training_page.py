"""The pages of a training and of a segmentation, from made results."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from test_page import Reader

from evenslice.labels.metrics import scores_of
from evenslice.report.segmentation_page import write_segmentation_page
from evenslice.report.training_curves import means_of, training_chart
from evenslice.report.training_page import write_training_page
from evenslice.segmentation.run import Segmented
from evenslice.verbs.train import Trained

EVIL = '<script>alert("1")</script>'


def trained(folder, looks=(), certificate=None, rows=120):
    log = folder / "m.log.csv"
    lines = [
        f"{n},{1 / n:.6f},0.001,{0.5 + n / 1000 if n % 40 == 0 else ''}" for n in range(1, rows + 1)
    ]
    log.write_text("\n".join(["steps,loss,lr,dice", *lines]) + "\n")
    recipe = {"arch": "unet", "encoder": EVIL, "seed": 7, "lr": 0.001}
    training = {
        "target": "foreground",
        "slices": [[0, 40]],
        "validation": [[44, 50], [60, 62]],
        "recipe": recipe,
    }
    model = SimpleNamespace(
        training=training,
        certificate=certificate,
        provenance={"versions": training.get("versions")},
    )
    scores = scores_of(np.array([[90, 5], [3, 40]]))
    return Trained(
        model, scores, folder / "m.safetensors", folder / "l", log, ({"steps": rows},), tuple(looks)
    )


def page_of(result, folder):
    path = folder / "m.report.html"
    write_training_page(path, result, {"volume": EVIL}, f"evenslice train {EVIL}")
    return path.read_text()


def test_a_training_is_told_with_its_scores_its_course_and_its_slices(tmp_path, make_look):
    html = page_of(trained(tmp_path, [make_look("m", (1, 1, 1), (16, 16))]), tmp_path)
    text = Reader(html).text
    assert "Dice 0.909, IoU 0.833 on 8 slices that it was not trained on, after 120 steps." in text
    assert "120 steps; last loss 0.008, last dice 0.620" in text
    assert "step 80: 0.580" in text
    assert text.index("Dice 0.909") < text.index("Course of the training")
    assert "slices trained on 0:40" in text
    assert "44:50, 60:62" in text
    assert "evenslice audit m.safetensors VOLUME" in text
    assert html.count("<script") == 1
    assert text.count(EVIL) == 3


@pytest.mark.parametrize(
    ("certificate", "words"),
    [
        (
            {"symmetric": True, "float32": 2e-7},
            "Even: reversing the slices leaves the output as it is",
        ),
        ({"symmetric": False, "float32": 0.24}, "largest relative difference 2.4e-01"),
        (None, "Not even by construction"),
    ],
)
def test_symmetry_is_what_the_certificate_says(tmp_path, certificate, words):
    assert words in Reader(page_of(trained(tmp_path, certificate=certificate), tmp_path)).text


def test_a_log_without_looks_or_rows_is_still_a_page(tmp_path):
    assert "not looked at during training" in page_of(trained(tmp_path, rows=30), tmp_path)
    assert "No step was noted" in page_of(trained(tmp_path, rows=0), tmp_path)


def test_means_of_stretches():
    points = [(float(n), float(n * n)) for n in range(5)]
    assert means_of(points, 5) == points
    assert means_of(points, 2) == [(1.0, 5 / 3), (3.5, 12.5)]


def test_a_long_log_is_drawn_short():
    rows = [{"steps": float(n), "loss": 1.0 + n % 7, "dice": None} for n in range(100_000)]
    assert len(training_chart(rows)) < 40_000


def test_a_segmentation_is_told_with_its_warnings_and_what_to_know(tmp_path, make_look):
    result = Segmented(
        Path(f"s{EVIL[1:8]}.zarr"),
        True,
        8,
        0,
        None,
        1,
        {"4": [3]},
        [[0, 8]],
        (f"careful {EVIL}",),
        3,
    )
    path = tmp_path / "s.report.html"
    write_segmentation_page(
        path, result, [make_look("m", (1, 1, 1), (16, 16))], {"model": EVIL}, EVIL
    )
    text = Reader(path.read_text()).text
    assert "with 1 object, in 8 blocks." in text
    assert "trained on the slices 0:8" in text
    assert "z 4 3" in text
    assert path.read_text().count("<script") == 1
    assert text.count(EVIL) == 3
