"""Loading torch into a viewer; no Qt."""

import subprocess
import sys

import pytest

from evenslice.napari.loading import keep_triton_out


@pytest.fixture
def no_triton(monkeypatch):
    """As if triton had not been imported; whatever is done to it is undone."""
    monkeypatch.setitem(sys.modules, "triton", None)
    del sys.modules["triton"]


@pytest.mark.parametrize(
    ("library", "kept"), [("/usr/lib/libLLVM-15.so.1", True), ("/usr/lib/libGL.so.1", False)]
)
def test_triton_is_kept_out_only_where_another_llvm_is_loaded(tmp_path, no_triton, library, kept):
    (tmp_path / "maps").write_text(f"7f00-7f01 r-xp 00000000 08:01 1 {library}\n")
    assert keep_triton_out(tmp_path / "maps") == kept
    assert ("triton" in sys.modules) == kept
    assert keep_triton_out(tmp_path / "maps") == kept


def test_a_triton_that_was_there_first_stays(tmp_path, monkeypatch):
    (tmp_path / "maps").write_text("libLLVM")
    monkeypatch.setitem(sys.modules, "triton", sys)
    assert not keep_triton_out(tmp_path / "maps")
    assert sys.modules["triton"] is sys


def test_where_there_are_no_maps_nothing_is_kept_out(tmp_path, no_triton):
    assert not keep_triton_out(tmp_path / "none")
    assert "triton" not in sys.modules


@pytest.mark.slow
def test_the_verbs_load_without_triton():
    code = "import sys; sys.modules['triton'] = None; import evenslice.segmentation.run, evenslice.verbs.audit; print('loaded')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "loaded\n", done.stderr
