import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from evenslice.report.page import render
from evenslice.report.verdict import sentence

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--virtual-time-budget=2000",
]

pytestmark = [
    pytest.mark.ui,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]


def browse(tmp_path, path, *flags):
    command = [CHROMIUM, *QUIET, f"--user-data-dir={tmp_path / 'profile'}", *flags, path.as_uri()]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)


@pytest.fixture
def written(page, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(render(page))
    return path


def test_the_browser_shows_the_verdict_and_draws_the_page(written, tmp_path, leaning, symmetric):
    dom = browse(tmp_path, written, "--dump-dom").stdout
    assert sentence(leaning) in dom
    assert sentence(symmetric) in dom
    shot = tmp_path / "shot.png"
    browse(tmp_path, written, "--window-size=1240,2600", f"--screenshot={shot}")
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(float)
    assert pixels.shape == (2600, 1240, 3)
    assert pixels.std() > 20
    assert pixels[:400].std() > 5


def test_pictures_and_charts_are_drawn_in_colour(written, tmp_path):
    shot = tmp_path / "shot.png"
    browse(tmp_path, written, "--window-size=1240,2600", f"--screenshot={shot}")
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    blue, orange = (
        np.all(pixels == colour, axis=2).sum() for colour in ([0, 114, 178], [213, 94, 0])
    )
    assert min(blue, orange) > 2000
    spread = pixels.max(axis=2) - pixels.min(axis=2)
    assert (spread[1300:] > 60).sum() > 3000


def test_a_phone_sees_no_sideways_page(written, tmp_path):
    """The page itself must not be wider than the screen: the ground shows at the right edge all the way down."""
    shot = tmp_path / "phone.png"
    browse(tmp_path, written, "--window-size=500,3000", f"--screenshot={shot}")
    pixels = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    edge = pixels[:, -4:]
    assert np.all(np.abs(edge - [247, 247, 245]) <= 1)
    assert pixels.std() > 20
