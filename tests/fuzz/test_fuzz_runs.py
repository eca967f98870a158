"""What runs stored, and archives of data, changed at random: read, or refused in a line."""

import io
import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from fuzzing import TEXTS, document, edited, edits, fuzz
from hypothesis import given
from hypothesis import strategies as st

from evenslice.data.archive import unpack
from evenslice.data.fetch import RECORD, SCHEMA, SourceRecord
from evenslice.segmentation.predictions import trained_spans, training_warning
from evenslice.segmentation.run import segment
from evenslice.study.folder import as_csv
from evenslice.volume.run_state import RunState, stored_rows, stored_table
from verbs.scenes import blurring

GREY = torch.arange(4 * 20 * 24, dtype=torch.uint8).reshape(4, 20, 24).numpy()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run that was begun, and its manifest."""
    folder = tmp_path_factory.mktemp("run")
    segment(blurring(), GREY, folder / "o.zarr", shard="1/2")
    return folder / "o.zarr.run", json.loads((folder / "o.zarr.run" / "manifest.json").read_text())


@fuzz(12)
@given(data=st.data())
def test_manifests(executions, tmp_path, run, data):
    place = tmp_path / "o.zarr.run"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(run[0], place)
    (place / "manifest.json").write_text(json.dumps(document(data.draw, run[1])))
    executions(lambda: RunState(place), lambda run_state: run_state.left("predict", range(3)))
    executions(lambda: segment(blurring(), GREY, tmp_path / "o.zarr", shard="1/2"))


ROW = {
    "treatment": "rgb",
    "network": "n",
    "dataset": "d",
    "target": "t",
    "seed": 0,
    "failure": "",
    "dice": 0.5,
    "slices": 3,
    "share_0": 0.3,
}


@fuzz(20)
@given(data=st.data())
def test_tables_of_runs(executions, tmp_path, data):
    path = tmp_path / "row.json"
    path.write_text(json.dumps(document(data.draw, ROW)))
    executions(lambda: stored_table(path, "failure"), lambda row: row["failure"] and None)
    path.write_text(
        json.dumps(document(data.draw, [{"steps": 1, "dice": None}, {"steps": 2, "dice": 0.5}]))
    )
    executions(lambda: stored_rows(path, "steps"), lambda rows: [row["steps"] for row in rows])
    path.write_bytes(edited(json.dumps(ROW).encode(), data.draw(edits(40))))
    executions(lambda: stored_table(path), lambda row: isinstance(row, dict) or 1 / 0)
    assert as_csv([ROW]).count("\n") == 2


@fuzz(20)
@given(data=st.data())
def test_notes_of_stores_and_data(executions, tmp_path, data):
    note = {"attributes": {"evenslice": {"trained_slices": [[0, 5], [7, 9]], "meaning": "labels"}}}
    (tmp_path / "zarr.json").write_text(json.dumps(document(data.draw, note)))
    executions(lambda: trained_spans(tmp_path), lambda spans: training_warning(spans, 9))
    record = {"schema": SCHEMA, "url": "https://a", "sha256": "x", "sha256_is": "y", "compared": []}
    (tmp_path / RECORD).write_text(json.dumps(document(data.draw, record)))
    executions(lambda: SourceRecord.read(tmp_path), lambda found: found is None or found.to_dict())


def packed(names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        for name in names:
            made.writestr(name, b"body" * 9)
    return buffer.getvalue()


def tarred(mode):
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=tarfile.PAX_FORMAT) as made:
        for name in ("a.tif", "deep/b.tif", "é" * 60):
            info = tarfile.TarInfo(name)
            info.size = 36
            made.addfile(info, io.BytesIO(b"body" * 9))
    return buffer.getvalue()


ARCHIVES = {
    "zip": packed(["a.tif", "deep/b.tif"]),
    "tar": tarred("w"),
    "tar.gz": tarred("w:gz"),
    "tar.xz": tarred("w:xz"),
}


@pytest.mark.parametrize("kind", ARCHIVES)
@fuzz(12)
@given(data=st.data())
def test_bytes_of_archives(executions, tmp_path, kind, data):
    body, number = ARCHIVES[kind], executions.count
    place, file = tmp_path / str(number), tmp_path / "archive"
    place.mkdir(exist_ok=True)
    file.write_bytes(edited(body, data.draw(edits(len(body)))))
    executions(
        lambda: unpack(file, place, ["a.tif"], 10**6), lambda names: [Path(name) for name in names]
    )
    outside = [
        path
        for path in tmp_path.rglob("*")
        if place not in path.parents and path not in (place, file)
    ]
    assert [path for path in outside if not path.relative_to(tmp_path).parts[0].isdecimal()] == []
    assert all(
        path.resolve().is_relative_to(place) and not path.is_symlink() for path in place.rglob("*")
    )


@fuzz(25)
@given(
    names=st.lists(
        st.one_of(
            TEXTS,
            st.text(min_size=1, max_size=12),
            st.lists(st.sampled_from(["..", ".", "a", "A", "", "~", "C:", "\\"]), max_size=5).map(
                "/".join
            ),
        ),
        max_size=4,
    )
)
def test_names_in_archives(executions, tmp_path, names):
    place, file = tmp_path / f"p{executions.count}", tmp_path / "archive"
    place.mkdir(exist_ok=True)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file.write_bytes(
            packed(
                [
                    "a.tif",
                    *(
                        name.encode("utf-8", "replace").decode()
                        for name in names
                        if name.partition("\0")[0]
                    ),
                ]
            )
        )
    executions(
        lambda: unpack(file, place, ["a.tif"], 10**6), lambda found: "a.tif" in found or 1 / 0
    )
    assert all(path.name == "archive" or path.name.startswith("p") for path in tmp_path.iterdir())
    assert all(
        path.resolve().is_relative_to(place) and not path.is_symlink() for path in place.rglob("*")
    )
