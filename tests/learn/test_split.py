import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenslice.errors import BadInputError
from evenslice.learn.patches import split_slices
from evenslice.volume.windows import neighbours

odd = st.sampled_from([1, 3, 5, 7, 9])


@st.composite
def plans(draw):
    slices, depth = draw(odd), draw(st.integers(12, 60))
    low = draw(st.integers(0, depth - 1))
    return (
        depth,
        slices,
        draw(st.one_of(st.none(), st.just(range(low, draw(st.integers(low + 1, depth)))))),
    )


@settings(derandomize=True, deadline=None, max_examples=200)
@given(plans())
def test_training_and_validation_windows_share_no_slice(plan):
    depth, slices, validation = plan
    if validation is not None and validation.start <= slices and validation.stop >= depth - slices:
        with pytest.raises(BadInputError, match="leaves none to train on"):
            split_slices(depth, slices, validation)
        return
    train, check = split_slices(depth, slices, validation)

    def seen(centres):
        return {int(n) for z in centres for n in neighbours(z, slices, depth)}

    assert not seen(train) & seen(check)
    assert sorted({*train, *check}) == sorted([*train, *check])
    assert {*train, *check} <= set(range(depth))
    if validation is not None:
        assert check == list(validation)


@pytest.mark.parametrize("slices", [1, 3, 5, 9])
def test_by_default_the_last_fifth_validates_after_a_gap_of_s(slices):
    train, check = split_slices(50, slices)
    assert check == list(range(40, 50))
    assert train == list(range(40 - slices))


def test_validation_in_the_middle_leaves_a_gap_on_both_sides():
    train, check = split_slices(20, 3, range(8, 10))
    assert train == [*range(5), *range(13, 20)]
    assert check == [8, 9]


def test_the_smallest_volume_that_can_be_split():
    assert split_slices(5, 3) == ([0], [4])
    with pytest.raises(BadInputError, match="the volume has 4 slices"):
        split_slices(4, 3)


@pytest.mark.parametrize(
    "validation", [range(3, 3), range(5, 3), range(-1, 3), range(8, 11), range(10, 12)]
)
def test_validation_outside_the_volume_is_refused(validation):
    with pytest.raises(BadInputError, match="expected some of 0:10"):
        split_slices(10, 3, validation)
