"""Where an audit looks."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evenslice.errors import BadInputError
from evenslice.evidence.sampling import plan_sites


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    st.integers(1, 40),
    st.integers(8, 90),
    st.integers(8, 90),
    st.sampled_from([1, 3, 5, 9]),
    st.integers(1, 80),
)
def test_windows_lie_wholly_inside_and_are_all_different(depth, height, width, slices, count):
    if depth < slices:
        with pytest.raises(BadInputError, match="expected at least"):
            plan_sites((depth, height, width), slices, 32, count, 0)
        return
    sites = plan_sites((depth, height, width), slices, 32, count, 0, 8)
    reach = slices // 2
    assert len({(s.z, s.y.start, s.x.start) for s in sites}) == len(sites) <= count
    for site in sites:
        assert reach <= site.z < depth - reach
        assert 0 <= site.y.start < site.y.stop <= height
        assert 0 <= site.x.start < site.x.stop <= width


def test_blocks_come_one_each_before_any_comes_twice():
    sites = plan_sites((30, 512, 512), 3, 256, 40, 0)
    assert max(Counter(s.cluster for s in sites).values()) == 1
    more = plan_sites((30, 512, 512), 3, 256, 80, 0)
    assert len(more) == 80
    assert more[:40] == sites
    assert len({s.cluster for s in more}) == 40


def test_windows_of_a_cluster_share_a_block():
    sites = plan_sites((12, 64, 96), 3, 32, 1000, 5)
    assert len(sites) == 10 * 2 * 3
    for cluster in {s.cluster for s in sites}:
        members = [s for s in sites if s.cluster == cluster]
        assert len({(s.z // 3, s.y.start, s.x.start) for s in members}) == 1


def test_tiles_are_cut_to_the_slice_and_to_the_network():
    [site] = plan_sites((3, 70, 200), 3, 256, 1, 0, 32)
    assert (site.y.stop - site.y.start, site.x.stop - site.x.start) == (64, 192)
    [site] = plan_sites((3, 20, 20), 3, 256, 1, 0, 32)
    assert (site.y.stop - site.y.start, site.x.stop - site.x.start) == (20, 20)


def test_the_seed_decides():
    one, same, other = (plan_sites((30, 300, 300), 3, 64, 20, seed) for seed in (1, 1, 2))
    assert one == same != other


def test_no_windows_is_refused():
    with pytest.raises(BadInputError, match="0 windows"):
        plan_sites((30, 300, 300), 3, 64, 0, 0)
