import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evenslice.errors import BadInputError, InputWarning
from evenslice.labels.targets import Target, boundaries, resolve_target, unique_values
from evenslice.volume.array import Volume

instances = arrays(np.int32, (6, 7), elements=st.integers(0, 3))
law = settings(derandomize=True, deadline=None, max_examples=40)


def holding(*values, dtype="int64") -> Volume:
    """Labels of two slices that hold these values between them."""
    flat = np.resize(np.array(values, dtype), (2, 1, max(2, len(values))))
    return Volume(flat, source="labels.tif")


@law
@given(instances)
def test_boundaries_as_a_loop_would_mark_them(labels):
    expected = np.zeros(labels.shape, np.uint8)
    for y, x in np.ndindex(labels.shape):
        around = [
            labels[v, u]
            for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
            if 0 <= v < 6 and 0 <= u < 7
        ]
        touched = any(other not in (0, labels[y, x]) for other in around)
        expected[y, x] = labels[y, x] == 0 or touched
    np.testing.assert_array_equal(boundaries(labels), expected)


@law
@given(instances, st.permutations([1, 2, 3]), st.integers(0, 3))
def test_boundaries_do_not_depend_on_names_or_on_how_the_slice_lies(labels, names, quarters):
    renamed = np.array([0, *names])[labels]
    np.testing.assert_array_equal(boundaries(renamed), boundaries(labels))
    np.testing.assert_array_equal(
        boundaries(np.rot90(labels, quarters)), np.rot90(boundaries(labels), quarters)
    )
    np.testing.assert_array_equal(boundaries(labels[:, ::-1]), boundaries(labels)[:, ::-1])


def test_boundaries_by_hand():
    labels = np.array([[1, 1, 2, 2, 2], [1, 1, 2, 2, 2], [1, 1, 0, 2, 2], [3, 3, 0, 2, 2]])
    assert boundaries(labels).tolist() == [
        [0, 1, 1, 0, 0],
        [0, 1, 1, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 0, 0],
    ]


@pytest.mark.parametrize("ignore", [255, -1, 5])
def test_what_is_ignored_makes_no_boundary(ignore):
    labels = np.array([[7, 7, ignore, 9, 9, 0, ignore], [7, 8, ignore, ignore, 9, 0, 0]])
    target = Target("boundary", 1, ignore)
    assert target.apply(labels).tolist() == [[0, 1, 0, 0, 0, 1, 0], [1, 1, 0, 0, 0, 1, 1]]
    assert target.known(labels).tolist() == [[0, 1, -1, 0, 0, 1, -1], [1, 1, -1, -1, 0, 1, 1]]


@law
@given(instances)
def test_an_ignored_label_is_learnt_from_nowhere_and_changes_nothing_else(labels):
    """What is known stays as it is where the ignored label does not touch it."""
    far = np.pad(labels == 3, 1)
    beside = far[:-2, 1:-1] | far[2:, 1:-1] | far[1:-1, :-2] | far[1:-1, 2:] | (labels == 3)
    found = Target("boundary", 1, 3).known(labels)
    np.testing.assert_array_equal(found == -1, labels == 3)
    np.testing.assert_array_equal(found[~beside], boundaries(labels)[~beside])
    for kind in ("foreground", "classes"):
        assert not Target(kind, 4, 3).apply(labels)[labels == 3].any()


def test_ignoring_label_0_leaves_the_boundaries_where_instances_touch():
    assert boundaries(np.array([[1, 2, 0, 3]]), 0).tolist() == [[1, 1, 0, 0]]


def test_boundaries_lie_in_the_plane():
    stack = np.stack([np.full((3, 3), 1), np.full((3, 3), 2)])
    assert not boundaries(stack).any()
    np.testing.assert_array_equal(
        boundaries(np.stack([np.eye(3)] * 2)), np.stack([boundaries(np.eye(3))] * 2)
    )


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint64", "float32"])
def test_applying_a_target_keeps_the_shape_and_gives_small_numbers(dtype):
    labels = np.random.default_rng(0).integers(0, 2, (2, 5, 6)).astype(dtype)
    before = labels.copy()
    for kind in ("foreground", "boundary", "classes"):
        made = Target(kind, 1).apply(labels)
        assert made.shape == labels.shape
        assert made.dtype == np.uint8
        assert made.max() <= 1
    np.testing.assert_array_equal(labels, before)


def test_foreground_is_what_is_above_0():
    assert Target("foreground", 1).apply(np.array([[0, 1, 255, 70000]])).tolist() == [[0, 1, 1, 1]]
    assert Target("classes", 4).apply(np.array([[0, 1, 3]])).tolist() == [[0, 1, 3]]


@pytest.mark.parametrize(
    ("values", "target"),
    [
        ((0, 1), Target("foreground", 1)),
        ((0, 255), Target("foreground", 1)),
        ((0, 1, 2), Target("classes", 3)),
        (range(8), Target("classes", 8)),
    ],
)
def test_auto_understands_masks_and_3_to_8_classes(values, target):
    assert resolve_target(holding(*values), "auto") == target
    assert resolve_target(holding(*values, dtype="float32"), "auto") == target


@pytest.mark.parametrize(
    "values", [(0, 128), (1, 2), (1, 2, 3), (0, 2, 3), range(9), (0, 1, 2, 7), (0, 5000)]
)
def test_auto_asks_about_anything_else(values):
    with pytest.raises(BadInputError, match=r"labels.tif holds .*say what they mean with --target"):
        resolve_target(holding(*values), "auto")


@pytest.mark.parametrize(
    ("values", "kind", "target"),
    [
        ((0, 255), "foreground", Target("foreground", 1)),
        ((0, 7, 9000), "foreground", Target("foreground", 1)),
        ((0, 7, 9000), "boundary", Target("boundary", 1)),
        ((7, 9), "boundary", Target("boundary", 1)),
        ((0, 1), "classes", Target("classes", 1)),
        (range(12), "classes", Target("classes", 12)),
        (range(256), "classes", Target("classes", 256)),
    ],
)
def test_what_is_said_is_done(values, kind, target):
    assert resolve_target(holding(*values), kind) == target


@pytest.mark.parametrize("values", [(0, 2), (0, 255), (1, 2)])
def test_classes_have_no_gaps(values):
    with pytest.raises(BadInputError, match="without gaps"):
        resolve_target(holding(*values), "classes")


def test_more_classes_than_a_byte_holds_are_refused():
    with pytest.raises(BadInputError, match="257 values, expected at most 256 classes"):
        resolve_target(holding(*range(257)), "classes")


@pytest.mark.parametrize("kind", ["auto", "foreground", "boundary", "classes"])
def test_labels_of_one_value_teach_nothing(kind):
    with pytest.raises(BadInputError, match="only the value 7"):
        resolve_target(holding(7), kind)


def test_foreground_needs_background():
    with pytest.raises(BadInputError, match="no label 0"):
        resolve_target(holding(1, 2), "foreground")


@pytest.mark.parametrize("ignore", [255, -1, 9])
def test_the_label_to_ignore_is_left_out(ignore):
    assert resolve_target(holding(0, 1, ignore), "auto", ignore) == Target("foreground", 1, ignore)
    assert resolve_target(holding(0, 1, 2, ignore), "auto", ignore) == Target("classes", 3, ignore)
    with pytest.raises(BadInputError, match="only the value 1"):
        resolve_target(holding(1, ignore), "foreground", ignore)
    with pytest.raises(BadInputError, match=f"only the value {ignore}"):
        resolve_target(holding(ignore), "auto", ignore)


@pytest.mark.parametrize(
    ("values", "words"),
    [((0, 0.5), "fractions"), ((0, np.nan), "fractions"), ((0, np.inf), "fractions")],
)
def test_labels_are_whole_numbers(values, words):
    with pytest.raises(BadInputError, match=words):
        unique_values(holding(*values, dtype="float64"))


@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_negative_labels_are_refused(dtype):
    with pytest.raises(BadInputError, match="negative label -2"):
        unique_values(holding(0, 1, -2, dtype=dtype))
    with pytest.raises(BadInputError, match="negative label -2"):
        unique_values(holding(0, -1, -2, dtype=dtype), ignore=-1)


def test_255_beside_0_and_1_may_mark_what_is_not_annotated():
    with pytest.warns(InputWarning, match="holds 255 beside 0 and 1.*--ignore-label 255"):
        resolve_target(holding(0, 1, 255), "foreground")
    for kind in ("auto", "classes"):
        with pytest.raises(BadInputError, match="255 with --ignore-label 255"):
            resolve_target(holding(0, 1, 2, 255), kind)
    resolve_target(holding(0, 255), "foreground")  # a mask: a warning would be an error


def test_values_are_gathered_over_all_slices():
    stack = np.zeros((3, 2, 2), np.uint64)
    stack[1, 0, 0], stack[2, 1, 1] = 2**40, 5
    assert unique_values(Volume(stack)) == [0, 5, 2**40]
