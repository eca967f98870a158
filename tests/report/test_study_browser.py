import base64

import numpy as np
import pytest
from browsing import Browser
from PIL import Image
from studies import NETWORKS, study
from test_browser import CHROMIUM

from evenslice.report.study_page import write_study_page

pytestmark = [
    pytest.mark.ui,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine"),
]

SHOWN = (
    "[...document.querySelectorAll('#cells-table tbody tr')].filter((row) => row.offsetHeight > 0)"
)
COUNT = "document.getElementById('cells-count').textContent"


@pytest.fixture(scope="module")
def found():
    return study(NETWORKS[:2], seeds=2, five=False)


@pytest.fixture(scope="module")
def written(found, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_study_page(path, found, "evenslice study small.toml --out small")
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium = Browser(tmp_path_factory.mktemp("profile"))
    yield chromium
    chromium.close()


def column(browser, number):
    return browser.ask(f"{SHOWN}.map((row) => row.cells[{number}].textContent.trim())")


def choose(browser, label, letters):
    browser.ask(
        f"[...document.querySelectorAll('label')].find((one) => one.textContent.startsWith('{label}')).control.focus()"
    )
    browser.write(letters)


def test_the_page_opens_without_a_complaint_and_shows_every_cell(browser, written, found):
    browser.open(written)
    assert browser.complaints() == []
    assert browser.ask(COUNT) == f"{len(found['rows'])} of {len(found['rows'])} cells shown"
    assert len(column(browser, 0)) == len(found["rows"])


def test_a_complaint_would_be_seen(browser, tmp_path):
    path = tmp_path / "bad.html"
    path.write_text("<!doctype html><title>t</title><script>nothing.at.all()</script>")
    browser.open(path)
    assert browser.complaints()


def test_choosing_by_keys_shows_the_cells_that_fit_and_says_how_many(browser, written, found):
    browser.open(written)
    choose(browser, "Treatment", "green")
    green = [row for row in found["rows"] if row["treatment"] == "green"]
    assert browser.ask(COUNT) == f"{len(green)} of {len(found['rows'])} cells shown"
    assert set(column(browser, 1)) == {"green"}
    choose(browser, "Data set", "V")
    choose(browser, "Seed", "1")
    both = [row for row in green if row["dataset"] == "VNC" and row["seed"] == 1]
    assert list(zip(*(column(browser, n) for n in (0, 2, 4)), strict=True)) == [
        (row["network"], "VNC", "1") for row in both
    ]
    assert browser.ask(COUNT) == f"{len(both)} of {len(found['rows'])} cells shown"


@pytest.mark.parametrize(
    ("label", "letters", "key", "value"),
    [("Network", "unet m", "network", NETWORKS[1]), ("Target", "f", "target", "foreground")],
)
def test_every_filter_filters(browser, written, found, label, letters, key, value):
    browser.open(written)
    choose(browser, label, letters)
    assert len(column(browser, 0)) == sum(row[key] == value for row in found["rows"]) > 0


def test_the_verdict_is_a_filter_too(browser, written, found):
    browser.open(written)
    choose(browser, "Verdict after", "fail")
    assert len(column(browser, 0)) == found["failed"] == 2
    assert set(column(browser, 10)) == {"✗ failed"}


def test_words_are_looked_for_in_the_whole_row_and_the_button_shows_all_again(
    browser, written, found
):
    browser.open(written)
    choose(browser, "Words", "reverse-Z vnc")
    expected = [
        row
        for row in found["rows"]
        if row["treatment"] == "rgb, reverse-z" and row["dataset"] == "VNC"
    ]
    assert len(column(browser, 0)) == len(expected) > 0
    choose(browser, "Words", " nowhere")
    assert browser.ask(COUNT) == f"0 of {len(found['rows'])} cells shown"
    browser.press("Tab")
    assert browser.ask("document.activeElement.textContent") == "Show all"
    browser.press("Enter")
    browser.ask("new Promise((done) => setTimeout(done, 20))")
    assert browser.ask(COUNT) == f"{len(found['rows'])} of {len(found['rows'])} cells shown"


def test_sorting_by_keys_goes_up_then_down_and_leaves_what_is_missing_last(browser, written, found):
    browser.open(written)
    browser.ask(
        "[...document.querySelectorAll('th button')].find((one) => one.textContent === 'Dice').focus()"
    )
    scores = sorted(row["dice"] for row in found["rows"] if not row["failure"])
    for key, order, expected in (
        ("Enter", "ascending", scores),
        ("Space", "descending", scores[::-1]),
    ):
        browser.press(key)
        assert (
            column(browser, 5) == [f"{value:.3f}" for value in expected] + ["–"] * found["failed"]
        )
        sorts = browser.ask(
            "[...document.querySelectorAll('#cells-table th[aria-sort]')].map((one) => one.ariaSort)"
        )
        assert sorts == [order]
    assert browser.ask("document.activeElement.textContent") == "Dice"


def test_numbers_below_zero_are_sorted_as_numbers_and_words_as_words(browser, written, found):
    browser.open(written)
    browser.ask(
        "[...document.querySelectorAll('th button')].find((one) => one.textContent === 'Index after').click()"
    )
    keys = browser.ask(f"{SHOWN}.map((row) => row.cells[9].dataset.key)")
    numbers = [float(key) for key in keys if key]
    assert numbers == sorted(numbers)
    assert numbers[0] < 0 < numbers[-1]
    browser.ask(
        "[...document.querySelectorAll('th button')].find((one) => one.textContent === 'Treatment').click()"
    )
    assert column(browser, 1) == sorted(row["treatment"] for row in found["rows"])
    assert browser.ask("document.querySelectorAll('#cells-table th[aria-sort]').length") == 1


def test_the_table_is_plain_and_whole_without_scripts(browser, written, found):
    browser.open(written, scripts=False)
    tree = browser.call("Accessibility.getFullAXTree")["nodes"]
    browser.call("Emulation.setScriptExecutionDisabled", value=False)
    roles = [node["role"]["value"] for node in tree if not node["ignored"]]
    assert "combobox" not in roles
    assert "searchbox" not in roles
    assert "button" not in roles
    assert roles.count("row") > len(found["rows"])
    names = [node["name"]["value"] for node in tree if node.get("name") and not node["ignored"]]
    assert f"{len(found['rows'])} cells" in names


def test_a_screen_reader_finds_a_name_for_everything_that_is_used_or_drawn(browser, written):
    browser.open(written)
    tree = [
        node for node in browser.call("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]
    ]
    named = {
        "combobox",
        "searchbox",
        "button",
        "link",
        "image",
        "img",
        "region",
        "navigation",
        "form",
        "list",
    }
    seen = [(node["role"]["value"], node.get("name", {}).get("value")) for node in tree]
    assert {"combobox", "searchbox", "button", "region", "status"} <= {role for role, _ in seen}
    assert [role for role, name in seen if role in named - {"list"} and not name] == []
    status = next(node for node in tree if node["role"]["value"] == "status")
    assert {one["name"]: one["value"]["value"] for one in status["properties"]}["live"] == "polite"


def test_tab_goes_from_the_skip_link_to_every_filter(browser, written):
    browser.open(written)
    reached = []
    for _ in range(120):
        browser.press("Tab")
        reached.append(
            browser.ask(
                "(() => { const one = document.activeElement; return one.labels?.[0]?.firstChild.textContent ?? one.textContent })()"
            )
        )
        if reached[-1] == "Show all":
            break
    assert reached[0] == "Skip to the results"
    assert reached[-8:] == [
        "Network",
        "Treatment",
        "Data set",
        "Target",
        "Seed",
        "Verdict after",
        "Words in the row",
        "Show all",
    ]


@pytest.mark.parametrize("width", [390, 768, 1240])
def test_no_screen_is_scrolled_sideways(browser, written, width):
    browser.open(written, width=width)
    assert browser.ask("document.documentElement.scrollWidth") <= width


def test_no_words_of_a_chart_leave_it(browser, written):
    browser.open(written)
    outside = browser.ask(
        """[...document.querySelectorAll('main svg text')].filter((one) => {
             const [a, b] = [one.getBoundingClientRect(), one.closest('svg').getBoundingClientRect()];
             return a.left < b.left - 1 || a.right > b.right + 1 || a.top < b.top - 1 || a.bottom > b.bottom + 1;
           }).map((one) => one.textContent)"""
    )
    assert outside == []


def test_paper_holds_the_whole_page_without_its_controls(browser, written):
    browser.open(written)
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert (
        browser.ask("getComputedStyle(document.getElementById('cells-filter')).display") == "none"
    )
    assert browser.ask("getComputedStyle(document.querySelector('.chart')).overflowX") == "visible"
    browser.call("Emulation.setEmulatedMedia", media="")
    printed = base64.b64decode(browser.call("Page.printToPDF", printBackground=False)["data"])
    assert printed.startswith(b"%PDF")
    assert printed.count(b"/Type /Page\n") >= 4


def test_charts_are_drawn_in_colour(browser, written, tmp_path):
    browser.open(written)
    box = browser.ask(
        "(() => { const b = document.getElementById('finding').getBoundingClientRect(); return [b.x, b.y + scrollY, b.width, b.height] })()"
    )
    clip = dict(zip(("x", "y", "width", "height"), box, strict=True))
    browser.picture(tmp_path / "shot.png", clip=clip | {"scale": 1})
    pixels = np.asarray(Image.open(tmp_path / "shot.png").convert("RGB")).astype(int)
    blue, orange = (
        np.all(pixels == colour, axis=2).sum() for colour in ([0, 114, 178], [213, 94, 0])
    )
    assert min(blue, orange) > 200
