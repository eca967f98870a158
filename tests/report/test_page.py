"""The page of audited models: whole, escaped, self-contained, and true to the results."""

import base64
import dataclasses
import hashlib
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from made_audits import audit_of, method_of
from PIL import Image

from evenslice.evidence.result import Check
from evenslice.evidence.stats import Interval
from evenslice.report.page import Page, Row, provenance_rows, render, write_audit_page, write_page
from evenslice.report.verdict import fixed, interval, sentence
from evenslice.volume.normalisation import Normalisation

VOID = {"meta", "img", "br", "link", "hr", "input"}
EVIL = '</style><script>alert("1")</script>&\'{{ 7 * 7 }}'


class Reader(HTMLParser):
    """Collects tags, attributes and text, and notices tags that do not close in order."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts, self.open = [], [], []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def check_whole(html):
    """Hold a page to what every page must be; return its reader."""
    reader = Reader(html)
    assert reader.all("html") == [{"lang": "en"}] and len(reader.all("h1")) == 1
    idents = [attrs["id"] for _, attrs in reader.tags if "id" in attrs]
    assert len(idents) == len(set(idents))
    for _, attrs in reader.tags:
        assert all(name in idents for name in attrs.get("aria-labelledby", "").split())
        assert not [name for name in attrs if name.startswith("on") or name == "srcset"]
    for attrs in reader.all("a"):
        assert attrs["href"].startswith("https://arxiv.org/") or attrs["href"][1:] in idents
    assert all(attrs.get("alt") for attrs in reader.all("img"))
    assert all(attrs["src"].startswith("data:image/png;base64,") for attrs in reader.all("img"))
    assert all(attrs.get("scope") for attrs in reader.all("th"))
    assert not {"link", "iframe", "object", "embed", "base"} & {tag for tag, _ in reader.tags}
    assert set(re.findall(r"https?://[^\s\"'<)]+", html)) == {"https://arxiv.org/abs/2505.14105"}
    assert "@import" not in html and not re.search(r"url\((?!#)", html)
    policy = next(attrs["content"] for attrs in reader.all("meta") if "http-equiv" in attrs)
    script = re.search("<script>(.*)</script>", html, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    assert html.count("<script") == 1 and "None" not in reader.text.replace("None of the", "")
    return reader


def pictures(html, kind):
    """Return the pictures of one layer; layers with a palette as RGBA."""
    sources = [attrs["src"] for attrs in Reader(html).all("img") if attrs.get("class") == kind]
    opened = [Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))) for source in sources]
    return [np.asarray(one.convert("RGBA") if one.mode == "P" else one) for one in opened]


def small(window):
    """A page of one model and one window."""
    row = Row("m", audit_of({"gradient": method_of((0.2, 0.5, 0.3))}))
    return render(Page("t", [row], [window], {}, "c"))


def test_the_page_is_whole_and_the_verdicts_come_first(page, leaning, symmetric):
    html = render(page)
    check_whole(html)
    order = [html.index(sentence(leaning)), html.index(sentence(symmetric)), html.index("<table")]
    assert order == sorted(order)


def test_every_text_from_outside_is_escaped(leaning, make_window):
    audit = dataclasses.replace(
        leaning,
        methods={EVIL: leaning.methods["gradient"]},
        checks={EVIL: Check(1.0, 1.0, None, EVIL)},
        stems=({"module": EVIL, "kind": EVIL, "norms": [1.0, 2.0, 3.0]},),
        normalisation=Normalisation((1.0,), (1.0,), EVIL),
    )
    rows, windows = [Row(EVIL, audit)], [make_window(EVIL, (1, 1, 1), (16, 16))]
    reader = check_whole(render(Page(EVIL, rows, windows, {EVIL: EVIL}, EVIL, EVIL)))
    assert reader.text.count(EVIL) > 15


def test_every_number_of_every_row_appears(page):
    text = Reader(render(page)).text
    for row in page.rows:
        assert fixed(row.dice) in text and fixed(row.iou) in text
        for name, method in row.audit.methods.items():
            assert name in text
            for one in (*method.shares, method.index):
                assert f"{fixed(one.value)} {interval(one.low, one.high)}" in text
        for norm in row.audit.stems[0]["norms"]:
            assert f"{norm:g}" in text
    for part in ("0.0312", "0.0184", "127.25", "41.5", "methods disagree", "not made", "400"):
        assert part in text
    assert "Sanity checks failed (agreement): the result is unreliable" in text
    assert page.command in text and "arXiv 2505.14105" in text
    for badge in ("← asymmetric", "= symmetric", "? inconclusive"):
        assert badge in text
    assert "0.0015 (0.0005 to 0.0025)" in text and "Lag, in slices not measured" in text


def test_missing_values_are_dashes():
    gone = Interval(float("nan"), float("nan"), float("nan"))
    method = dataclasses.replace(method_of((0.3, 0.4, 0.3)), shares=(gone, gone, gone), index=None)
    audit = audit_of({"gradient": method}, "inconclusive", stems=())
    text = check_whole(render(Page("t", [Row("a", audit)], [], {}, "c"))).text
    assert "nan" not in text.lower().split()
    assert "a by gradient – – – – – – – – ? inconclusive" in text
    assert "No first layer could be read" in text


def test_unlike_numbers_of_slices_share_one_table():
    shares = {"one": (1.0,), "three": (0.2, 0.5, 0.3), "five": (0.11, 0.12, 0.4, 0.17, 0.2)}
    rows = [Row(name, audit_of({"gradient": method_of(one)})) for name, one in shares.items()]
    text = check_whole(render(Page("t", rows, [], {}, "c"))).text
    assert "Share, -2 Share, -1 Share, centre Share, +1 Share, +2" in text
    assert "one by gradient – – – 1.000 0.990 to 1.010 – –" in text
    assert "three by gradient – – 0.200 0.190 to 0.210 0.500" in text
    assert "Pair ±2" in text and "mirror pair 2: 0.290" in text


@pytest.mark.parametrize("slices", [1, 3, 5])
def test_pictures_of_windows_that_are_not_square(make_window, slices):
    html = small(make_window("m", [1.0] * slices, (24, 40)))
    counts = {"raw": slices, "attribution": slices, "prediction": 1, "truth": 1, "error": 1}
    for kind, count in counts.items():
        assert [picture.shape[:2] for picture in pictures(html, kind)] == [(24, 40)] * count
    assert "aspect-ratio: 40 / 24" in html
    assert all(f"z {48 + slot - slices // 2}" in html for slot in range(slices))


def test_one_grey_scale_for_all_slices_and_models(make_window):
    raw = np.array([1000, 2000, 3000], np.uint16)[:, None, None] * np.ones((1, 8, 8), np.uint16)
    zero = np.zeros((3, 8, 8), np.float32)
    one = dataclasses.replace(make_window("a", (1, 1, 1), (8, 8)), slices=raw, attribution=zero)
    two = dataclasses.replace(one, slices=raw[::-1])
    html = render(Page("t", [Row("m", audit_of({"g": method_of((1.0,))}))], [one, two], {}, "c"))
    assert [int(picture.mean()) for picture in pictures(html, "raw")] == [0, 128, 255, 255, 128, 0]
    assert not np.any([picture[..., 3] for picture in pictures(html, "attribution")])


def test_models_that_saw_the_same_window_are_shown_together(page, make_window):
    here = [make_window(label, (1, 1, 1), (16, 16)) for label in ("rgb", "green")]
    there = [dataclasses.replace(window, origin=(9, 0, 0)) for window in here]
    windows = [here[0], there[0], here[1], there[1]]
    reader = Reader(render(dataclasses.replace(page, windows=windows)))
    places = [attrs["aria-label"] for attrs in reader.all("div") if attrs.get("class") == "place"]
    assert places == [
        "Window 1 of 2: z 48, y 512 to 527, x 256 to 271",
        "Window 2 of 2: z 9, y 0 to 15, x 0 to 15",
    ]
    assert reader.text.count("Window 1 z 48") == 1
    assert [attrs["max"] for attrs in reader.all("input") if attrs["type"] == "range"] == ["2"]


@pytest.mark.parametrize(
    ("gone", "layers", "shown"),
    [
        ({"truth": None}, ["raw", "attribution", "prediction"], ["raw", "attribution"]),
        ({"attribution": None}, ["raw", "prediction", "truth", "error"], ["raw", "prediction"]),
    ],
)
def test_only_the_layers_that_there_are_can_be_shown(make_window, gone, layers, shown):
    window = dataclasses.replace(make_window("a", (1, 1, 1), (16, 16)), voxel_nm=None, **gone)
    html = small(window)
    boxes = {one["data-layer"]: "checked" in one for one in Reader(html).all("input")}
    assert list(boxes) == layers and [kind for kind in boxes if boxes[kind]] == shown
    assert 'class="bar-label"' not in html


def test_scale_bar_and_stretched_pixels(make_window):
    window = make_window("a", (1, 1, 1), (20, 40))
    html = small(dataclasses.replace(window, voxel_nm=(30.0, 12.0, 6.0)))
    assert html.count('class="bar-label"') == 1
    assert 'style="width: 20.833%"></span><span class="bar-label">50 nm' in html
    assert "aspect-ratio: 40 / 40" in html


def test_numbers_have_a_colour_each_and_probabilities_one(make_window):
    window = make_window("a", (1, 1, 1), (16, 16))
    classes = np.arange(256).reshape(16, 16) % 3
    numbered = dataclasses.replace(
        window, prediction=classes.astype(np.float32), truth=np.minimum(classes, 1)
    )
    html = small(numbered)
    (shown,) = pictures(html, "prediction")
    assert len(np.unique(shown[shown[..., 3] > 0], axis=0)) == 2
    assert "class 2" in html and "class 3" not in html
    (wrong,) = pictures(html, "error")
    assert np.array_equal(wrong[..., 3] > 0, classes == 2)
    objects = dataclasses.replace(window, prediction=classes.astype(np.float32) * 1000)
    assert "objects, in eight colours" in small(objects)
    (shown,) = pictures(small(window), "prediction")
    assert len(np.unique(shown[..., :3].reshape(-1, 3), axis=0)) == 1


def test_many_large_noisy_windows_stay_under_eight_megabytes(page, make_window):
    noise = np.random.default_rng(0).random((9, 300, 300), dtype=np.float32)
    noisy = {"slices": noise, "attribution": noise, "prediction": noise[0], "truth": noise[1]}
    window = dataclasses.replace(make_window("a", (1, 1, 1), (16, 16)), **noisy)
    assert len(render(dataclasses.replace(page, windows=[window] * 3)).encode()) < 8e6


def test_writing_replaces_whole_and_takes_names_that_are_not_utf8(tmp_path, symmetric):
    path = tmp_path / "new" / "report.html"
    for command in ("c", "evenslice audit m.safetensors caf\udce9.tif"):
        write_audit_page(path, symmetric, "m", {}, command)
    assert "caf\\udce9.tif" in path.read_text(encoding="utf-8")
    with pytest.raises(AttributeError):
        write_page(path, None)
    assert "caf\\udce9.tif" in path.read_text(encoding="utf-8")
    assert [each.name for each in path.parent.iterdir()] == ["report.html"]


def test_provenance_has_a_row_per_input():
    record = {"name": "a.tif", "bytes": 1234, "sha256": "ab", "hashed": "sampled", "voxels": "cd"}
    gone = {"name": "b", "bytes": None, "sha256": None, "hashed": "none"}
    made = {"inputs": {"volume": record, "labels": gone}, "seed": 0, "versions": {"torch": "2"}}
    assert provenance_rows(made) == {
        "volume read": "a.tif, 1,234 bytes, SHA-256 of samples ab, voxels cd",
        "labels read": "b",
        "seed": "0",
        "versions": "torch 2",
    }
    assert provenance_rows({}) == {}
