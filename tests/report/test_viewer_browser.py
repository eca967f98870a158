"""The viewer of windows in a real browser: switches, slider, keys, paper, no script."""

import base64
import dataclasses

import pytest
from browsing import Browser
from test_browser import CHROMIUM

from evenslice.report.page import Page, Row, render

pytestmark = [
    pytest.mark.ui,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]

SEEN = """[...document.querySelectorAll('.frame img')].filter((one) => one.checkVisibility({visibilityProperty: true})
  && !one.closest('.on-paper')).map((one) => one.className)"""
HEADS = "[...document.querySelectorAll('.place')].filter((one) => one.checkVisibility()).map((one) => one.ariaLabel)"
SHOWN_PLACE = "document.querySelector('.slide output').textContent"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium = Browser(tmp_path_factory.mktemp("profile"))
    yield chromium
    chromium.close()


@pytest.fixture
def written(page, make_window, tmp_path):
    windows = [
        dataclasses.replace(make_window(label, (1, 1, 1), (24, 40), seed), origin=(seed, 0, 0))
        for seed in (1, 2, 3)
        for label in ("rgb", "green")
    ]
    path = tmp_path / "report.html"
    path.write_text(render(dataclasses.replace(page, windows=windows)))
    return path


def switch(browser, kind):
    browser.ask(f"document.querySelector('[data-layer={kind}]').focus()")
    browser.press("Space")


def test_one_window_is_seen_by_all_models_and_nothing_is_asked_of_the_network(browser, written):
    browser.call("Network.enable")
    browser.open(written)
    assert browser.complaints() == []
    asked = [
        one["params"]["request"]["url"]
        for one in browser.seen
        if one["method"] == "Network.requestWillBeSent"
    ]
    assert {url.split(":")[0] for url in asked} == {"file", "data"}
    assert browser.ask(HEADS) == ["Window 1 of 3: z 1, y 0 to 23, x 0 to 39"]
    assert browser.ask("document.querySelectorAll('.place:not(.aside) .strip').length") == 2
    assert sorted(browser.ask(SEEN)) == ["attribution"] * 6 + ["raw"] * 6


def test_every_layer_is_switched_by_the_keyboard(browser, written):
    browser.open(written)
    for kind, count in (("prediction", 2), ("truth", 2), ("error", 2)):
        switch(browser, kind)
        assert browser.ask(SEEN).count(kind) == count
        assert browser.ask(f"document.querySelector('.key-{kind}').checkVisibility()")
        switch(browser, kind)
        assert browser.ask(SEEN).count(kind) == 0
    for kind in ("raw", "attribution"):
        switch(browser, kind)
        assert browser.ask(SEEN).count(kind) == 0
    assert browser.ask(SEEN) == []


def test_the_slider_goes_through_the_windows_and_says_where_it_is(browser, written):
    browser.open(written)
    browser.ask("document.getElementById('window-slider').focus()")
    browser.press("Down")
    assert browser.ask(SHOWN_PLACE) == "Window 1 of 3: z 1, y 0 to 23, x 0 to 39"
    browser.press("Up")
    browser.press("Up")
    text = "Window 3 of 3: z 3, y 0 to 23, x 0 to 39"
    assert browser.ask(HEADS) == [text]
    assert browser.ask(SHOWN_PLACE) == text
    assert (
        browser.ask("document.getElementById('window-slider').getAttribute('aria-valuetext')")
        == text
    )


def test_layers_lie_exactly_over_the_slice(browser, written):
    browser.open(written)
    boxes = browser.ask(
        """[...document.querySelectorAll('.place:not(.aside) .frame')].map((frame) => [...frame.querySelectorAll('img')]
        .map((one) => {const box = one.getBoundingClientRect(); return [box.x, box.y, box.width, box.height].join()}))"""
    )
    assert all(len(set(frame)) == 1 for frame in boxes)
    width, height = (float(one) for one in boxes[0][0].split(",")[2:])
    assert width > 200
    assert width / height == pytest.approx(40 / 24, rel=0.01)


def test_paper_gets_every_window_with_and_without_layers(browser, written):
    browser.open(written)
    pictures = "document.querySelectorAll('.on-paper img').length"
    browser.ask("addEventListener('beforeprint', () => { window.onPaper = " + pictures + "; })")
    assert (
        len(base64.b64decode(browser.call("Page.printToPDF", printBackground=False)["data"]))
        > 20_000
    )
    assert browser.ask("window.onPaper") == 3 * 2 * 3
    assert browser.ask(pictures) == 0


def test_without_scripts_every_window_is_there_and_no_slider(browser, written):
    browser.open(written, scripts=False)
    root = browser.call("DOM.getDocument")["root"]["nodeId"]
    places = browser.call("DOM.querySelectorAll", nodeId=root, selector=".place:not(.aside)")[
        "nodeIds"
    ]
    assert len(places) == 3
    assert browser.call("DOM.querySelectorAll", nodeId=root, selector=".slide[hidden]")["nodeIds"]


def test_one_window_needs_no_slider(browser, leaning, make_window, tmp_path):
    path = tmp_path / "one.html"
    windows = [make_window("m", (1, 1, 1), (24, 40))]
    path.write_text(render(Page("t", [Row("m", leaning)], windows, {}, "c")))
    browser.open(path)
    assert browser.complaints() == []
    assert browser.ask("document.querySelector('.slide')") is None
    assert len(browser.ask(SEEN)) == 6
