import base64
import dataclasses
import hashlib
import io
import re
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from evenslice.report.page import Page, Row, render, write_page
from evenslice.report.verdict import fixed, interval, sentence

VOID = {"meta", "img", "br", "link", "hr", "input"}


class Reader(HTMLParser):
    """Collects tags, attributes and text, and notices tags that do not close in order."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.words, self.open = [], [], []
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
        self.words.append(data)

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def pictures(html, kind):
    """Return the pictures of one layer; layers with a palette as RGBA."""
    sources = [attrs["src"] for attrs in Reader(html).all("img") if attrs.get("class") == kind]
    opened = [Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))) for source in sources]
    return [np.asarray(one.convert("RGBA") if one.mode == "P" else one) for one in opened]


def bare(rows=(), looks=(), **changes):
    return Page(
        **{"title": "t", "rows": rows, "looks": looks, "facts": {}, "command": "c", **changes}
    )


def test_the_page_is_well_formed_and_speaks_its_language(page):
    reader = Reader(render(page))
    assert reader.all("html") == [{"lang": "en"}]
    ids = [attrs["id"] for _, attrs in reader.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for attrs in reader.all("a"):
        assert attrs["href"].startswith("https://arxiv.org/") or attrs["href"][1:] in ids
    assert all(attrs.get("alt") for attrs in reader.all("img"))
    assert all(attrs.get("scope") for attrs in reader.all("th"))
    assert len(reader.all("h1")) == 1


def test_the_verdict_comes_before_every_table(page, leaning, even):
    html = render(page)
    assert html.index(sentence(leaning)) < html.index(sentence(even)) < html.index("<table")


def test_nothing_is_loaded_from_anywhere(page):
    html = render(page)
    reader = Reader(html)
    assert not [tag for tag, _ in reader.tags if tag in {"link", "iframe", "object", "embed"}]
    assert reader.all("script") == [{}]
    assert "@import" not in html
    assert "url(" not in html
    addresses = re.findall(r"https?://[^\s\"'<)]+", html)
    assert addresses == ["https://arxiv.org/abs/2505.14105"]
    assert all(attrs["src"].startswith("data:image/png;base64,") for attrs in reader.all("img"))
    policy = next(attrs["content"] for attrs in reader.all("meta") if "http-equiv" in attrs)
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )


def test_every_text_from_outside_is_escaped(leaning, make_look):
    evil = '<script>alert("1")</script>'
    methods = {evil: leaning["methods"]["gradient"]}
    checks = {evil: {"value": 1, "tolerance": evil, "passed": None, "reason": evil}}
    stems = [{"module": evil, "kind": evil, "norms": [1.0, 2.0, 3.0]}]
    scaling = {"uniform": True, "mean": evil, "std": 1, "source": evil}
    audit = leaning | {
        "methods": methods,
        "checks": checks,
        "stems": stems,
        "normalisation": scaling,
    }
    looks = [make_look(evil, (1, 1, 1), (16, 16))]
    html = render(Page(evil, [Row(evil, audit, note=evil)], looks, {evil: evil}, evil, evil))
    assert html.count("<script") == 1
    assert "<script>alert" not in html
    assert "&lt;script&gt;" in html
    reader = Reader(html)
    assert reader.text.count(evil) > 15


def test_every_number_of_every_row_appears(page):
    text = Reader(render(page)).text
    for row in page.rows:
        for score in (row.dice, row.iou):
            assert fixed(score) in text
        for name, method in row.audit["methods"].items():
            assert name in text
            for stem, low, high in (
                ("shares", "shares_low", "shares_high"),
                ("mirror_pairs", "mirror_pairs_low", "mirror_pairs_high"),
            ):
                for values in zip(method[stem], method[low], method[high], strict=True):
                    assert f"{fixed(values[0])} {interval(*values[1:])}" in text
        for norm in row.audit["stems"][0]["norms"]:
            assert f"{norm:g}" in text
    for words in (
        "0.0312",
        "0.0184",
        "127.25",
        "41.5",
        "families disagree",
        "not made",
        "400",
        "resnet18",
    ):
        assert words in text
    assert "evenslice demo ./evenslice-demo --seed 7" in text
    assert "arXiv 2505.14105" in text


def test_lag_is_told_or_said_to_need_labels(leaning, even):
    assert "0.0015 (0.0005 to 0.0025)" in Reader(render(bare([Row("a", leaning)]))).text
    text = Reader(render(bare([Row("a", even)]))).text
    assert "Lag, in slices not measured" in text


def test_verdicts_have_a_word_and_a_symbol(page):
    text = Reader(render(page)).text
    assert "← leans to previous" in text
    assert "= even" in text
    assert "? inconclusive" in text


def test_missing_values_are_dashes(leaning):
    nothing = dict.fromkeys(leaning["methods"]["gradient"])
    entry = nothing | {"shares": [None, float("nan"), 0.4], "verdict": "inconclusive"}
    audit = leaning | {
        "methods": {"gradient": entry},
        "verdict": "inconclusive",
        "reversal": {},
        "stems": [],
    }
    text = Reader(render(bare([Row("a", audit, None, float("nan"))]))).text
    assert "None" not in text
    assert "nan" not in text.lower().split()
    assert "a by gradient – – – – – – 0.400 – – –" in text
    assert "No first layer could be read" in text


def test_an_empty_audit_and_an_empty_page_still_render():
    assert "No verdict was recorded" in Reader(render(bare([Row("a", {})]))).text
    assert "How to cite" in Reader(render(bare())).text


@pytest.mark.parametrize("slices", [1, 3, 5])
def test_pictures_of_windows_that_are_not_square(make_look, slices):
    look = make_look("m", [1.0] * slices, (24, 40))
    html = render(bare(looks=[look]))
    counts = {"raw": slices, "attribution": slices, "prediction": 1, "truth": 1, "error": 1}
    for kind, count in counts.items():
        assert [picture.shape[:2] for picture in pictures(html, kind)] == [(24, 40)] * count
    assert "aspect-ratio: 40 / 24" in html
    for slot in range(slices):
        assert f"z {48 + slot - slices // 2}" in html


def test_unlike_numbers_of_slices_share_one_table(make_audit, make_method):
    rows = [
        Row("one", make_audit({"gradient": make_method((1.0,), 0, "abstained")}, "abstained")),
        Row(
            "three",
            make_audit(
                {"gradient": make_method((0.2, 0.5, 0.3), 0.01, "asymmetric")}, "asymmetric"
            ),
        ),
        Row(
            "five",
            make_audit(
                {"gradient": make_method((0.11, 0.12, 0.4, 0.17, 0.2), 0.01, "asymmetric")},
                "asymmetric",
            ),
        ),
    ]
    text = Reader(render(bare(rows))).text
    assert "Share, -2 Share, -1 Share, centre Share, +1 Share, +2" in text
    assert "one by gradient – – – – – 1.000 1.000 to 1.000" in text
    assert "three by gradient – – – 0.200 0.190 to 0.210 0.500" in text
    assert "Pair ±2" in text
    assert "mirror pair 2: 0.290" in text


def test_one_grey_scale_for_all_slices_and_models(make_look):
    dark = make_look("a", (1, 1, 1), (32, 32))
    raw = np.zeros((3, 32, 32), dtype=np.uint16)
    raw[0], raw[1], raw[2] = 1000, 2000, 3000
    zero = np.zeros((3, 32, 32), dtype=np.float32)
    one = dataclasses.replace(dark, slices=raw, attribution=zero)
    two = dataclasses.replace(dark, slices=raw[::-1], attribution=zero)
    html = render(bare(looks=[one, two]))
    assert [int(picture.mean()) for picture in pictures(html, "raw")] == [0, 128, 255, 255, 128, 0]
    assert not np.any([picture[..., 3] for picture in pictures(html, "attribution")])


def test_models_that_saw_the_same_window_are_shown_together(make_look):
    here = [make_look(label, (1, 1, 1), (16, 16)) for label in ("rgb", "green")]
    there = [dataclasses.replace(look, origin=(9, 0, 0)) for look in here]
    reader = Reader(render(bare(looks=[here[0], there[0], here[1], there[1]])))
    groups = [attrs["aria-label"] for attrs in reader.all("div") if attrs.get("class") == "place"]
    assert groups == [
        "Window 1 of 2: z 48, y 512 to 527, x 256 to 271",
        "Window 2 of 2: z 9, y 0 to 15, x 0 to 15",
    ]
    assert reader.text.count("Window 1 z 48") == 1
    assert [attrs["max"] for attrs in reader.all("input") if attrs["type"] == "range"] == ["2"]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_constant_slices_of_every_type(make_look, dtype):
    look = dataclasses.replace(
        make_look("a", (1, 1, 1), (16, 16)), slices=np.full((3, 16, 16), 9, dtype=dtype)
    )
    assert np.all(pictures(render(bare(looks=[look])), "raw")[1] == 128)


def test_without_truth_or_voxel_size(make_look):
    look = dataclasses.replace(make_look("a", (1, 1, 1), (16, 16)), truth=None, voxel_nm=None)
    html = render(bare(looks=[look]))
    assert 'class="bar-words"' not in html
    assert [len(pictures(html, kind)) for kind in ("raw", "prediction", "truth", "error")] == [
        3,
        1,
        0,
        0,
    ]
    assert [one["data-layer"] for one in Reader(html).all("input")] == [
        "raw",
        "attribution",
        "prediction",
    ]


def test_without_attribution_the_prediction_is_shown_at_first(make_look):
    look = dataclasses.replace(make_look("a", (1, 1, 1), (16, 16)), attribution=None)
    boxes = {
        one["data-layer"]: "checked" in one
        for one in Reader(render(bare(looks=[look]))).all("input")
    }
    assert boxes == {"raw": True, "prediction": True, "truth": False, "error": False}


def test_scale_bar_and_stretched_pixels(make_look):
    look = dataclasses.replace(make_look("a", (1, 1, 1), (20, 40)), voxel_nm=(30.0, 12.0, 6.0))
    html = render(bare(looks=[look]))
    assert html.count('class="bar-words"') == 1
    assert 'style="width: 20.833%"></span><span class="bar-words">50 nm' in html
    assert "aspect-ratio: 40 / 40" in html


def test_numbers_have_colours_and_probabilities_one(make_look):
    look = make_look("a", (1, 1, 1), (16, 16))
    classes = np.arange(256).reshape(16, 16) % 3
    both = dataclasses.replace(
        look, prediction=classes.astype(np.float32), truth=np.minimum(classes, 1)
    )
    html = render(bare(looks=[both]))
    (shown,) = pictures(html, "prediction")
    assert len(np.unique(shown[shown[..., 3] > 0], axis=0)) == 2
    assert "class 2" in html
    assert "class 3" not in html
    (wrong,) = pictures(html, "error")
    assert np.array_equal(wrong[..., 3] > 0, classes == 2)
    objects = dataclasses.replace(look, prediction=classes.astype(np.float32) * 1000)
    assert "objects, in eight colours" in render(bare(looks=[objects]))
    (shown,) = pictures(render(bare(looks=[look])), "prediction")
    assert len(np.unique(shown[..., :3].reshape(-1, 3), axis=0)) == 1


def test_many_large_noisy_windows_stay_under_eight_megabytes(make_look):
    noise = np.random.default_rng(0).random((9, 300, 300), dtype=np.float32)
    look = dataclasses.replace(
        make_look("a", (1, 1, 1), (16, 16)),
        slices=noise,
        attribution=noise,
        prediction=noise[0],
        truth=noise[1],
    )
    assert len(render(bare(looks=[look] * 4)).encode()) < 8e6


def test_writing_replaces_whole_or_not_at_all(page, tmp_path):
    path = tmp_path / "new" / "report.html"
    write_page(page, path)
    assert path.read_text(encoding="utf-8") == render(page)
    broken = dataclasses.replace(page, rows=[Row("a", {"methods": 3})])
    with pytest.raises((TypeError, AttributeError)):
        write_page(broken, path)
    assert path.read_text(encoding="utf-8") == render(page)
    assert [each.name for each in path.parent.iterdir()] == ["report.html"]


def test_names_that_are_not_utf8_can_be_written(tmp_path):
    path = tmp_path / "report.html"
    write_page(bare(command="evenslice audit m.safetensors caf\udce9.tif"), path)
    assert "caf\\udce9.tif" in path.read_text(encoding="utf-8")


def test_the_report_does_not_import_torch():
    code = "import sys, evenslice.report.page; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
