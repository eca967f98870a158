"""EM section artefacts: as requested, never on the wrong slot, and alike on both sides."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from counting import Counting
from evenslice.learn.patches import Section, apply_sections, draw_sections, read_sections
from evenslice.options import EM
from evenslice.volume.array import Volume
from evenslice.volume.windows import read_window

PLAIN = Section()
OFF = {name: {"probability": 0.0} for name in EM.model_fields}


def only(**tables) -> EM:
    return EM(**OFF | {name: {"probability": 1.0} | table for name, table in tables.items()})


def drawn(em: EM, slices: int = 3, count: int = 400) -> list[tuple[Section, ...]]:
    return [draw_sections(np.random.default_rng([5, i]), slices, em) for i in range(count)]


def done(window, *sections, seed=0):
    return apply_sections(window, sections, 100.0, 20.0, np.random.default_rng(seed))


def test_nothing_is_done_where_nothing_is_asked_for():
    assert set(drawn(EM(**OFF), 5)) == {(PLAIN,) * 5}
    window = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    np.testing.assert_array_equal(done(window, PLAIN, PLAIN, PLAIN), window)


@pytest.mark.parametrize("slices", [1, 3, 5])
def test_the_centre_is_never_lost_nor_shifted(slices):
    for sections in drawn(only(missing={}, shift={}), slices, 100):
        assert sections[slices // 2] == PLAIN
        assert all(section.lost for slot, section in enumerate(sections) if slot != slices // 2)
    shifts = {s.shift for sections in drawn(only(shift={"size": 1}), slices, 100) for s in sections}
    assert shifts == {(0, 0)} if slices == 1 else len(shifts) == 9


@pytest.mark.parametrize("name", list(EM.model_fields))
def test_both_sides_are_touched_alike(name):
    """Artefacts of a window follow the law of its reversal: +j suffers as often as -j."""
    em = EM(**OFF | {name: {"probability": 0.5}})
    counts = Counter(
        slot for sections in drawn(em, 5, 2000) for slot, s in enumerate(sections) if s != PLAIN
    )
    for j in (1, 2):
        assert abs(counts[2 - j] - counts[2 + j]) < 4 * np.sqrt(2000 * 0.5)  # 4 standard deviations
        assert counts[2 - j] > 700
    assert (counts[2] == 0) == (name in ("missing", "shift"))


def test_sections_are_independent():
    gains = np.array([[s.gain for s in sections] for sections in drawn(only(contrast={}), 3, 1000)])
    assert np.abs(np.corrcoef(gains.T) - np.eye(3)).max() < 0.12


def test_strengths_stay_within_their_sizes():
    em = only(
        brightness={"size": 0.4}, contrast={"size": 0.2}, blur={"size": 2.0}, noise={"size": 0.1}
    )
    centres = [sections[1] for sections in drawn(em)]
    for name, low, high in [
        ("offset", -0.4, 0.4),
        ("gain", 0.8, 1.2),
        ("blur", 0.0, 2.0),
        ("noise", 0.0, 0.1),
    ]:
        values = np.array([getattr(s, name) for s in centres])
        assert low <= values.min() < low + 0.1 * (high - low)
        assert high >= values.max() > high - 0.1 * (high - low)


@pytest.mark.parametrize("blank", [0.0, 1.0])
def test_lost_slices_are_blank_or_copies_of_the_centre(blank):
    kinds = {
        s.lost
        for sections in drawn(only(missing={"blank": blank}))
        for s in (sections[0], sections[2])
    }
    assert kinds == {"blank" if blank else "copy"}


def test_brightness_and_contrast_by_hand():
    window = np.array([[[100, 120]], [[100, 120]], [[80, 90]]], np.uint8)
    out = done(window, Section(gain=1.5), Section(offset=0.5), Section(gain=0.5, offset=-1.0))
    assert out.tolist() == [[[100, 130]], [[110, 130]], [[70, 75]]]


def test_a_lost_slice_is_the_mean_or_what_became_of_the_centre():
    window = np.array([[[1, 2]], [[100, 120]], [[3, 4]]], np.uint8)
    out = done(window, Section(lost="blank"), Section(offset=1.0), Section(lost="copy", offset=2.0))
    assert out.tolist() == [[[100, 100]], [[120, 140]], [[120, 140]]]


def test_blur_keeps_the_sum_and_smooths():
    window = np.zeros((1, 31, 31), np.float32)
    window[0, 15, 15] = 100
    out = done(window, Section(blur=2.0))
    assert out.sum() == pytest.approx(100, rel=1e-4)
    assert out.max() < 5


def test_noise_has_its_deviation_and_its_seed():
    window = np.full((3, 100, 100), 100, np.float32)
    sections = (PLAIN, Section(noise=0.5), Section(noise=0.5))
    out = done(window, *sections)
    assert (out[0] == 100).all()
    assert out[1:].std((1, 2)) == pytest.approx([10, 10], rel=0.05)
    assert not np.array_equal(out[1], out[2])
    np.testing.assert_array_equal(out, done(window, *sections))
    assert not np.array_equal(out, done(window, *sections, seed=1))


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "int32", "uint64", "float32", "bool"]
)
def test_grey_values_stay_what_the_type_can_hold(dtype):
    dtype = np.dtype(dtype)
    bounds = (0, 1) if dtype.kind == "b" else (-1e4, 1e4) if dtype.kind == "f" else None
    low, high = bounds or (np.iinfo(dtype).min, np.iinfo(dtype).max)
    window = np.array([[[low, high]]], dtype)
    out = apply_sections(
        window, (Section(gain=3.0, noise=0.01),), 0.4, 0.5, np.random.default_rng(0)
    )
    if dtype.kind == "f":
        assert out[0, 0, 1] > 2 * high
        return
    assert out.min() >= float(low)
    assert out.max() <= float(high)
    np.testing.assert_array_equal(out, np.rint(out))


def test_shifted_slices_are_read_from_where_they_would_lie():
    volume = Volume(np.arange(3 * 20 * 30, dtype=np.int32).reshape(3, 20, 30))
    sections = (Section(shift=(2, -3)), PLAIN, Section(shift=(-1, 4)))
    out = read_sections(volume, 1, slice(5, 10), slice(6, 12), sections)
    pixels = volume.pixels
    np.testing.assert_array_equal(
        out, [pixels[0, 7:12, 3:9], pixels[1, 5:10, 6:12], pixels[2, 4:9, 10:16]]
    )


@pytest.mark.parametrize("where", [(0, 0), (15, 24), (8, 10)])
def test_beyond_the_edge_the_volume_is_mirrored(where):
    raw = np.arange(3 * 20 * 30, dtype=np.int32).reshape(3, 20, 30)
    y, x = slice(where[0], where[0] + 5), slice(where[1], where[1] + 6)
    out = read_sections(
        Volume(raw), 1, y, x, (Section(shift=(-4, 3)), PLAIN, Section(shift=(4, 4)))
    )
    wide = np.pad(raw, ((0, 0), (9, 9), (9, 9)), mode="symmetric")
    for slot, (dy, dx) in ((0, (-4, 3)), (1, (0, 0)), (2, (4, 4))):
        np.testing.assert_array_equal(
            out[slot], wide[slot, 9 + y.start + dy :, 9 + x.start + dx :][:5, :6]
        )


def test_no_more_is_read_than_needed():
    pixels = Counting(np.zeros((3, 20, 30), np.uint8))
    read_sections(Volume(pixels), 1, slice(5, 10), slice(6, 12), (PLAIN, PLAIN, PLAIN))
    read_sections(
        Volume(pixels), 1, slice(5, 10), slice(6, 12), (Section(shift=(2, 0)), PLAIN, PLAIN)
    )
    assert [(y, x) for _, y, x in pixels.reads] == [
        (slice(5, 10), slice(6, 12)),
        (slice(3, 12), slice(4, 14)),
    ]


def test_windows_of_one_slice_are_changed_too():
    window = read_window(Volume(np.full((2, 8, 8), 50, np.uint8)), 0, 1, slice(0, 8), slice(0, 8))
    (section,) = draw_sections(
        np.random.default_rng(0), 1, only(brightness={}, missing={}, shift={})
    )
    assert section == replace(PLAIN, offset=section.offset)
    assert done(window, section).shape == (1, 8, 8)
