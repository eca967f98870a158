"""The pages in a real browser: every page, the viewer of windows, the table of cells."""

import base64
import dataclasses

import numpy as np
import pytest
from browsing import NEEDS_CHROMIUM, Browser
from PIL import Image
from studies import NETWORKS, study

from evenslice.report.page import render
from evenslice.report.run_pages import write_study_page
from evenslice.report.verdict import sentence

pytestmark = NEEDS_CHROMIUM
BLUE, ORANGE = [0, 114, 178], [213, 94, 0]
PLACE = "Window {} of 3: z {}, y 0 to 23, x 0 to 39"
SEEN = """[...document.querySelectorAll('.frame img')].filter((one) =>
  one.checkVisibility({visibilityProperty: true}) && !one.closest('.on-paper'))
  .map((one) => one.className)"""
PLACES = """[...document.querySelectorAll('.place')].filter((one) => one.checkVisibility())
  .map((one) => one.ariaLabel)"""
ROWS = """[...document.querySelectorAll('#cells-table tbody tr')]
  .filter((row) => row.offsetHeight > 0)"""
COUNT = "document.getElementById('cells-count').textContent"
OUTSIDE = """[...document.querySelectorAll('main svg text')].filter((one) => {
  const [a, b] = [one.getBoundingClientRect(), one.closest('svg').getBoundingClientRect()];
  return a.left < b.left - 1 || a.right > b.right + 1 || a.top < b.top - 1
    || a.bottom > b.bottom + 1;
}).map((one) => one.textContent)"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium = Browser(tmp_path_factory.mktemp("profile"))
    yield chromium
    chromium.close()


@pytest.fixture(scope="module")
def found():
    return study(NETWORKS[:2], seeds=2, five=False)


@pytest.fixture(scope="module")
def study_file(found, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_study_page(path, found, "evenslice study small.toml --out small")
    return path


@pytest.fixture
def audit_file(page, make_window, tmp_path):
    windows = [
        dataclasses.replace(make_window(label, (1, 1, 1), (24, 40), seed), origin=(seed, 0, 0))
        for seed in (1, 2, 3)
        for label in ("rgb", "green")
    ]
    path = tmp_path / "report.html"
    path.write_text(render(dataclasses.replace(page, windows=windows)))
    return path


@pytest.fixture(params=["audit_file", "study_file"])
def either(request):
    return request.getfixturevalue(request.param)


def click(browser, kind, text):
    every = f"[...document.querySelectorAll('{kind}')]"
    browser.ask(f"{every}.find((one) => one.textContent === '{text}').click()")


@pytest.mark.parametrize("width", [390, 1240])
def test_a_page_opens_without_complaints_or_network_and_fits_every_screen(
    browser, either, width, tmp_path
):
    browser.call("Network.enable")
    browser.open(either, width=width)
    assert browser.complaints() == []
    sent = [one for one in browser.seen if one["method"] == "Network.requestWillBeSent"]
    assert {one["params"]["request"]["url"].split(":")[0] for one in sent} <= {"file", "data"}
    assert browser.ask("document.documentElement.scrollWidth") <= width
    assert browser.ask(OUTSIDE) == [], "text that leaves its chart"
    browser.picture(tmp_path / "shot.png")
    pixels = np.asarray(Image.open(tmp_path / "shot.png").convert("RGB"))
    least = 200 if width > 1000 else 1
    assert min(np.all(pixels == colour, axis=2).sum() for colour in (BLUE, ORANGE)) >= least


def test_a_complaint_would_be_seen(browser, tmp_path):
    path = tmp_path / "bad.html"
    path.write_text("<!doctype html><title>t</title><script>nothing.at.all()</script>")
    browser.open(path)
    assert browser.complaints()


def test_paper_holds_the_whole_page_without_its_controls(browser, study_file):
    browser.open(study_file)
    browser.call("Emulation.setEmulatedMedia", media="print")
    form = "getComputedStyle(document.getElementById('cells-filter')).display"
    assert browser.ask(form) == "none"
    assert browser.ask("getComputedStyle(document.querySelector('.chart')).overflowX") == "visible"
    browser.call("Emulation.setEmulatedMedia", media="")
    printed = base64.b64decode(browser.call("Page.printToPDF", printBackground=False)["data"])
    assert printed.startswith(b"%PDF") and printed.count(b"/Type /Page\n") >= 4


def test_a_screen_reader_finds_a_name_for_everything_that_is_used_or_drawn(browser, study_file):
    browser.open(study_file)
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    tree = [node for node in nodes if not node["ignored"]]
    seen = [(node["role"]["value"], node.get("name", {}).get("value")) for node in tree]
    named = {"combobox", "searchbox", "button", "link", "image", "region", "navigation", "form"}
    assert {"combobox", "searchbox", "button", "region", "status"} <= {role for role, _ in seen}
    assert [role for role, name in seen if role in named and not name] == []
    status = next(node for node in tree if node["role"]["value"] == "status")
    assert {one["name"]: one["value"]["value"] for one in status["properties"]}["live"] == "polite"


def test_the_first_window_is_shown_and_every_layer_switched_by_the_keyboard(
    browser, audit_file, leaning
):
    def switch(kind):
        browser.ask(f"document.querySelector('[data-layer={kind}]').focus()")
        browser.press("Space")

    browser.open(audit_file)
    assert sentence(leaning) in browser.ask("document.body.textContent")
    assert browser.ask(PLACES) == [PLACE.format(1, 1)]
    assert sorted(browser.ask(SEEN)) == ["attribution"] * 6 + ["raw"] * 6
    for kind in ("prediction", "truth", "error"):
        switch(kind)
        assert browser.ask(SEEN).count(kind) == 2
        assert browser.ask(f"document.querySelector('.key-{kind}').checkVisibility()")
        switch(kind)
        assert browser.ask(SEEN).count(kind) == 0
    for kind in ("raw", "attribution"):
        switch(kind)
    assert browser.ask(SEEN) == []


def test_the_slider_goes_through_the_windows_and_says_where_it_is(browser, audit_file):
    shown = "document.querySelector('.slide output').textContent"
    spoken = "document.getElementById('window-slider').getAttribute('aria-valuetext')"
    browser.open(audit_file)
    browser.ask("document.getElementById('window-slider').focus()")
    for key, place in (("Down", 1), ("Up", 2), ("Up", 3)):
        browser.press(key)
        text = PLACE.format(place, place)
        assert browser.ask(PLACES) == [text] and browser.ask(shown) == text
    assert browser.ask(spoken) == text


def test_layers_lie_exactly_over_the_slice(browser, audit_file):
    browser.open(audit_file)
    boxes = browser.ask(
        """[...document.querySelectorAll('.place:not(.aside) .frame')].map((frame) =>
        [...frame.querySelectorAll('img')].map((one) => {
          const box = one.getBoundingClientRect();
          return [box.x, box.y, box.width, box.height].join() }))"""
    )
    assert all(len(set(frame)) == 1 for frame in boxes)
    width, height = (float(one) for one in boxes[0][0].split(",")[2:])
    assert width > 200 and width / height == pytest.approx(40 / 24, rel=0.01)


def test_paper_gets_every_window_with_and_without_layers(browser, audit_file):
    browser.open(audit_file)
    pictures = "document.querySelectorAll('.on-paper img').length"
    browser.ask(f"addEventListener('beforeprint', () => {{ window.onPaper = {pictures}; }})")
    printed = browser.call("Page.printToPDF", printBackground=False)["data"]
    assert len(base64.b64decode(printed)) > 20_000
    assert browser.ask("window.onPaper") == 3 * 2 * 3 and browser.ask(pictures) == 0


def test_without_scripts_every_window_is_there_and_no_slider(browser, audit_file):
    browser.open(audit_file, scripts=False)
    root = browser.call("DOM.getDocument")["root"]["nodeId"]
    for selector, count in ((".place:not(.aside)", 3), (".slide[hidden]", 1)):
        nodes = browser.call("DOM.querySelectorAll", nodeId=root, selector=selector)["nodeIds"]
        assert len(nodes) == count


def column(browser, number):
    return browser.ask(f"{ROWS}.map((row) => row.cells[{number}].textContent.trim())")


def choose(browser, label, letters):
    browser.ask(
        "[...document.querySelectorAll('label')]"
        f".find((one) => one.textContent.startsWith('{label}')).control.focus()"
    )
    browser.write(letters)


@pytest.mark.parametrize(
    ("choices", "fits"),
    [
        ({"Network": "unet m"}, lambda row: row["network"] == NETWORKS[1]),
        ({"Dataset": "V", "Seed": "1"}, lambda row: row["dataset"] == "VNC" and row["seed"] == 1),
        ({"Verdict after": "fail"}, lambda row: row["failure"]),
        (
            {"Words": "reverse-Z vnc"},
            lambda row: row["treatment"] == "rgb, reverse-z" and row["dataset"] == "VNC",
        ),
        ({"Words": "nowhere"}, lambda row: False),
    ],
)
def test_choosing_by_keys_shows_the_cells_that_fit_and_says_how_many(
    browser, study_file, found, choices, fits
):
    browser.open(study_file)
    for label, letters in choices.items():
        choose(browser, label, letters)
    own = [row for row in found["rows"] if fits(row)]
    assert browser.ask(COUNT) == f"{len(own)} of {len(found['rows'])} cells shown"
    assert column(browser, 1) == [row["treatment"] for row in own]
    click(browser, "button", "Show all")
    browser.ask("new Promise((done) => setTimeout(done, 20))")
    assert len(column(browser, 0)) == len(found["rows"])


def test_sorting_goes_up_then_down_by_numbers_or_words_and_leaves_what_is_missing_last(
    browser, study_file, found
):
    browser.open(study_file)
    head = "[...document.querySelectorAll('th button')].find((one) => one.textContent === 'Dice')"
    browser.ask(f"{head}.focus()")
    scores = sorted(row["dice"] for row in found["rows"] if not row["failure"])
    heads = "[...document.querySelectorAll('#cells-table th[aria-sort]')]"
    for key, order in (("Enter", "ascending"), ("Space", "descending")):
        browser.press(key)
        expected = scores if order == "ascending" else scores[::-1]
        assert column(browser, 5) == [f"{one:.3f}" for one in expected] + ["–"] * found["failed"]
        assert browser.ask(f"{heads}.map((one) => one.ariaSort)") == [order]
    click(browser, "th button", "Index after")
    keys = browser.ask(f"{ROWS}.map((row) => row.cells[9].dataset.key)")
    numbers = [float(key) for key in keys if key]
    assert numbers == sorted(numbers) and numbers[0] < 0 < numbers[-1]
    click(browser, "th button", "Treatment")
    assert column(browser, 1) == sorted(row["treatment"] for row in found["rows"])


def test_the_table_is_plain_and_whole_without_scripts(browser, study_file, found):
    browser.open(study_file, scripts=False)
    tree = browser.call("Accessibility.getFullAXTree")["nodes"]
    browser.call("Emulation.setScriptExecutionDisabled", value=False)
    roles = [node["role"]["value"] for node in tree if not node["ignored"]]
    assert not {"combobox", "searchbox", "button"} & set(roles)
    assert roles.count("row") > len(found["rows"])


def test_tab_goes_from_the_skip_link_to_every_filter(browser, study_file):
    active = "document.activeElement"
    focused = f"{active}.labels?.[0]?.firstChild.textContent ?? {active}.textContent"
    browser.open(study_file)
    reached = []
    while len(reached) < 120 and reached[-1:] != ["Show all"]:
        browser.press("Tab")
        reached.append(browser.ask(focused))
    assert reached[0] == "Skip to the results"
    filters = ["Network", "Treatment", "Dataset", "Target", "Seed", "Verdict after"]
    assert reached[-8:] == [*filters, "Words in the row", "Show all"]
