"""A viewer of napari without a screen: real Qt, with a graphics card that does not draw."""

import os
import tempfile
from pathlib import Path

if not os.environ.get("DISPLAY"):
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ["NAPARI_CONFIG"] = str(
    Path(tempfile.gettempdir(), f"evenslice-napari-{os.getpid()}.yaml")
)  # not the user's own

import pytest

MANIFEST = Path(__file__).resolve().parents[2] / "src" / "evenslice" / "napari" / "napari.yaml"


@pytest.hookimpl(tryfirst=True)  # before pytest chooses by marker
def pytest_collection_modifyitems(items):
    """Every test here belongs to those of the screen."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.ui)


@pytest.fixture(scope="session")
def model_file(tmp_path_factory, make_model):
    """A small asymmetric model: the first slot of its stem counts three times."""
    from evenslice import save_model

    path = tmp_path_factory.mktemp("model") / "asymmetric.safetensors"
    model = make_model("green")
    model.module.encoder.model.conv1.weight.data[:, 0] *= 3
    save_model(path, model)
    return path


@pytest.fixture
def viewer(qtbot, monkeypatch):
    """A viewer with its window, not shown; the plug-in is known to it."""
    from napari._vispy.utils import gl
    from npe2 import PluginManager, PluginManifest

    import napari

    if os.environ.get("QT_QPA_PLATFORM") == "offscreen":
        known = {gl.gl.GL_EXTENSIONS: "texture_float"}
        monkeypatch.setattr(gl.gl, "glGetParameter", lambda number: known.get(number, 2048))
    monkeypatch.setattr("napari._qt.threads.status_checker.StatusChecker.start", lambda self: None)
    made = napari.Viewer(show=False)
    if "evenslice" not in {manifest.name for manifest in PluginManager.instance().iter_manifests()}:
        PluginManager.instance().register(PluginManifest.from_file(MANIFEST))
    yield made
    made.close()
