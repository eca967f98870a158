"""The pages of a training and of a segmentation, from made results."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from test_page import EVIL, Reader, check_whole

from evenslice.labels.metrics import scores_of
from evenslice.report.charts import to_svg
from evenslice.report.run_pages import (
    means_of,
    training_figure,
    write_segmentation_page,
    write_training_page,
)
from evenslice.segmentation.result import Segmented
from evenslice.verbs.train import Trained


def trained(folder, windows=(), certificate=None, rows=120):
    log = folder / "m.log.csv"
    lines = [
        f"{n},{1 / n:.6f},0.001,{0.5 + n / 1000 if n % 40 == 0 else ''}" for n in range(1, rows + 1)
    ]
    log.write_text("\n".join(["steps,loss,lr,dice", *lines]) + "\n")
    training = {
        "target": "foreground",
        "slices": [[0, 40]],
        "validation": [[44, 50], [60, 62]],
        "recipe": {"arch": "unet", "encoder": EVIL, "seed": 7, "lr": 0.001},
    }
    model = SimpleNamespace(training=training, certificate=certificate, provenance={})
    return Trained(
        model=model,
        scores=scores_of(np.array([[90, 5], [3, 40]])),
        path=folder / "m.safetensors",
        last=folder / "l",
        log=log,
        validations=({"steps": rows},),
        views=tuple(windows),
    )


def page_of(result, folder):
    path = folder / "m.report.html"
    write_training_page(path, result, {"volume": EVIL}, f"evenslice train {EVIL}")
    return path.read_text()


def test_a_training_is_shown_with_scores_course_and_slices(tmp_path, make_window):
    html = page_of(trained(tmp_path, [make_window("m", (1, 1, 1), (16, 16))]), tmp_path)
    text = check_whole(html).text
    assert "Dice 0.909, IoU 0.833 on 8 slices that it was not trained on, after 120 steps." in text
    assert "120 steps; last loss 0.008, last Dice 0.620" in text and "step 80: 0.580" in text
    assert text.index("Dice 0.909") < text.index("Course of the training")
    assert "slices trained on 0:40" in text and "44:50, 60:62" in text
    assert "evenslice audit m.safetensors VOLUME" in text
    assert text.count(EVIL) == 3


@pytest.mark.parametrize(
    ("certificate", "words"),
    [
        ({"symmetric": True, "float32": 2e-7}, "Symmetric: reversing the slices leaves the output"),
        ({"symmetric": False, "float32": 0.24}, "largest relative difference 2.4e-01"),
        (None, "Not symmetric by construction"),
    ],
)
def test_symmetry_is_what_the_certificate_says(tmp_path, certificate, words):
    assert words in Reader(page_of(trained(tmp_path, certificate=certificate), tmp_path)).text


def test_a_log_without_validations_is_still_a_page(tmp_path):
    assert "not validated during training" in page_of(trained(tmp_path, rows=30), tmp_path)


def test_the_course_is_drawn_as_it_was_and_a_long_one_short():
    left, right = training_figure([(1.0, 3.0), (2.0, 1.0)], [(2.0, 0.5)]).axes
    assert left.lines[0].get_xydata().tolist() == [[1, 3], [2, 1]]
    assert right.lines[-1].get_xydata().tolist() == [[2, 0.5]]
    long = [(float(n), 1.0 + n % 7) for n in range(100_000)]
    assert len(to_svg(training_figure(long, []), "c", "t")) < 60_000


def test_means_of_stretches():
    points = [(float(n), float(n * n)) for n in range(5)]
    assert means_of(points, 5) == points
    assert means_of(points, 2) == [(1.0, 5 / 3), (3.5, 12.5)]


def test_a_segmentation_is_shown_with_its_warnings_and_what_to_know(tmp_path, make_window):
    result = Segmented(
        Path(f"s{EVIL[9:15]}.zarr"),
        True,
        8,
        objects=1,
        blank={"4": [3]},
        trained_slices=[[0, 8]],
        warnings=(f"careful {EVIL}",),
        slices=3,
    )
    path, windows = tmp_path / "s.report.html", [make_window("m", (1, 1, 1), (16, 16))]
    write_segmentation_page(path, result, windows, {"model": EVIL}, EVIL)
    text = check_whole(path.read_text()).text
    assert "with 1 object, in 8 blocks." in text
    assert "trained on the slices 0:8" in text and "z 4 3" in text
    assert text.count(EVIL) == 3
