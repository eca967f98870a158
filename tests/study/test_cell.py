import errno
import os

import pytest

from evenslice.errors import BadInputError
from evenslice.study import cell as study_cell
from evenslice.volume.atomic import check_writable


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run a cell in which something is called."""
    monkeypatch.setattr(study_cell, "facts_of", lambda cell, data: {"seed": 0})

    def call(inner):
        monkeypatch.setattr(study_cell, "_run", lambda *_: inner())
        return study_cell.run_cell(None, None, tmp_path, "cpu")

    return call


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_full_or_failing_disk_is_no_finding_about_a_cell(run, monkeypatch, tmp_path, code):
    def fail(*_, **__):
        raise OSError(code, os.strerror(code))

    with pytest.raises(OSError, match=os.strerror(code)):
        run(fail)
    monkeypatch.setattr("pathlib.Path.touch", fail)
    with pytest.raises(BadInputError, match=rf"cannot be written \({os.strerror(code)}\)"):
        run(lambda: check_writable(tmp_path / "m.safetensors", force=False))


def test_what_a_network_or_a_file_raises_is_a_row(run, tmp_path):
    def refuse():
        raise BadInputError("labels.tif is no volume, expected one; check it")

    assert run(refuse)["failure"] == "labels.tif is no volume, expected one; check it"
    assert run((tmp_path / "none.tif").read_bytes)["failure"] != ""
    assert run(dict)["failure"] == ""
