"""The manifest of the plug-in."""

import tomllib
from pathlib import Path

import pytest

npe2 = pytest.importorskip("npe2", reason="npe2 comes with napari, the extra of that name")
ROOT = Path(__file__).resolve().parents[2]
MANIFEST = ROOT / "src" / "evenslice" / "napari" / "napari.yaml"


def test_the_manifest_is_valid_and_all_it_names_is_there():
    pytest.importorskip("qtpy.QtWidgets", reason="the panels need Qt", exc_type=ImportError)
    pytest.importorskip("napari.layers", reason="the panels need napari")
    manifest = npe2.PluginManifest.from_file(MANIFEST)
    manifest.validate_imports()
    names = [widget.display_name for widget in manifest.contributions.widgets]
    assert names == ["Audit", "Segment"]
    used = {
        one.command
        for part in ("readers", "widgets", "sample_data")
        for one in getattr(manifest.contributions, part)
    }
    assert used == {command.id for command in manifest.contributions.commands}


def test_the_package_names_the_manifest():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["entry-points"]["napari.manifest"] == {
        "evenslice": "evenslice.napari:napari.yaml"
    }
    assert "napari/*.yaml" in project["tool"]["setuptools"]["package-data"]["evenslice"]


def test_which_names_are_claimed():
    from fnmatch import fnmatch

    (reader,) = npe2.PluginManifest.from_file(MANIFEST).contributions.readers
    names = ("a.tif", "a.h5", "a.zarr", "a.mrc", "a.raw", "a.png", "a.csv")
    claimed = [one for one in names if any(fnmatch(one, p) for p in reader.filename_patterns)]
    assert claimed == ["a.tif", "a.h5", "a.zarr", "a.mrc", "a.raw"]
