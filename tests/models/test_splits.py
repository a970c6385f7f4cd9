import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from galgaze.models.splits import folds_by_position, near, sky_groups, split_by_position


def separation_arcsec(ra_1, dec_1, ra_2, dec_2):
    """By the haversine formula, not by the chords of the code."""
    ra_1, dec_1, ra_2, dec_2 = map(np.radians, (ra_1, dec_1, ra_2, dec_2))
    half = np.sin((dec_2 - dec_1) / 2) ** 2 + np.cos(dec_1) * np.cos(dec_2) * np.sin((ra_2 - ra_1) / 2) ** 2
    return np.degrees(2 * np.arcsin(np.sqrt(half))) * 3600


def crowded_sky(seed: int, count: int):
    """Sources of three classes, crowded enough that many have neighbours; some of unknown position."""
    rng = np.random.default_rng(seed)
    ra = (rng.uniform(-0.15, 0.15, count)) % 360  # across RA 0
    dec = rng.uniform(59.9, 60.1, count)
    unknown = rng.random(count) < 0.05
    ra[unknown] = dec[unknown] = np.nan
    label = rng.choice(3, count, p=[0.6, 0.3, 0.1])
    return np.array([f"s{number}" for number in range(count)]), ra, dec, label


def pairs_on_two_sides(side, ra, dec) -> int:
    close = separation_arcsec(ra[:, None], dec[:, None], ra[None], dec[None]) <= 60
    return int((close & (side[:, None] != side[None])).sum())


skies = st.tuples(st.integers(0, 2**31), st.integers(2, 120))


# ---- groups


def test_groups_are_chains_of_links_of_60_arcsec():
    dec = np.array([0, 59, 118, 179.5, 500, 500.0]) / 3600
    group = sky_groups(np.zeros(6), dec)
    assert group[0] == group[1] == group[2]
    assert group[3] != group[2]
    assert group[4] == group[5] != group[3]
    assert len(np.unique(sky_groups(np.zeros(6), dec, radius_arcsec=10))) == 5


@pytest.mark.parametrize(
    ("ra", "dec", "together"),
    [
        ([0.001, 359.999], [0.0, 0.0], True),
        ([0.0, 180.0], [89.995, 89.995], True),  # 36 arcsec across the pole
        ([10.0, 10.0], [-90.0, -89.99], True),
        ([10.0, 10.03], [60.0, 60.0], True),  # 54 arcsec: 108 in RA at Dec 60
        ([10.0, 10.03], [0.0, 0.0], False),
    ],
)
def test_distances_are_on_the_sphere(ra, dec, together):
    group = sky_groups(np.array(ra), np.array(dec))
    assert (group[0] == group[1]) == together


def test_unknown_positions_are_groups_of_their_own():
    group = sky_groups(np.array([np.nan, np.nan, 5.0, 5.0, 5.0]), np.array([1.0, 1.0, 1.0, 1.0, np.nan]))
    assert len(np.unique(group)) == 4
    assert group[2] == group[3]
    assert len(np.unique(sky_groups(np.full(4, np.nan), np.full(4, np.nan)))) == 4
    assert len(sky_groups(np.empty(0), np.empty(0))) == 0


def test_a_thousand_rows_of_one_object_are_one_group():
    assert sky_groups(np.full(20_000, 150.0), np.full(20_000, 2.0)).max() == 0


@given(skies)
def test_near_agrees_with_the_distances(sky):
    _, ra, dec, _ = crowded_sky(*sky)
    half = len(ra) // 2
    distance = separation_arcsec(ra[:half, None], dec[:half, None], ra[None, half:], dec[None, half:])
    expected = (distance <= 60).any(axis=1)
    assert near(ra[:half], dec[:half], ra[half:], dec[half:]).tolist() == expected.tolist()


def test_nothing_is_near_nothing():
    assert not near(np.array([1.0, np.nan]), np.array([1.0, 1.0]), np.empty(0), np.empty(0)).any()
    assert not near(np.array([1.0]), np.array([1.0]), np.array([np.nan]), np.array([1.0])).any()


def test_near_at_the_pole_across_zero_and_beside_what_is_unknown():
    ra, dec = np.array([0.0, 180.0, 10.0, np.nan]), np.array([0.0, 89.9999, 0.0, 3.0])
    others = np.array([[359.9999, 0.0], [0.0, 89.9999], [np.nan, 3.0]])
    assert near(ra, dec, *others.T, 1.0).tolist() == [True, True, False, False]
    assert near(ra, dec, *others.T, 0.3).tolist() == [False, False, False, False]
    assert near(np.zeros(0), np.zeros(0), *others.T).tolist() == []


def test_near_agrees_with_astropy():
    from astropy import units
    from astropy.coordinates import SkyCoord

    rng = np.random.default_rng(3)
    ra, dec = rng.uniform(0, 0.3, 200) + 359.9, rng.uniform(60, 60.2, 200)
    others = rng.uniform(0, 0.3, 50) + 359.9, rng.uniform(60, 60.2, 50)
    separation = SkyCoord(ra, dec, unit="deg").match_to_catalog_sky(SkyCoord(*others, unit="deg"))[1]
    expected = separation < 60 * units.arcsec
    assert 20 < expected.sum() < 180
    np.testing.assert_array_equal(near(ra, dec, *others), expected)


# ---- the split


@given(skies, st.floats(0.05, 0.6))
def test_split_keeps_neighbours_together_whatever_the_order(sky, fraction):
    source_id, ra, dec, label = crowded_sky(*sky)
    chosen = split_by_position(source_id, ra, dec, label, fraction, 1)
    assert pairs_on_two_sides(chosen, ra, dec) == 0
    order = np.random.default_rng(sky[0]).permutation(len(ra))
    again = split_by_position(source_id[order], ra[order], dec[order], label[order], fraction, 1)
    assert (again == chosen[order]).all()


@given(skies, st.floats(0.05, 0.6))
def test_each_class_gives_its_share_to_within_a_group(sky, fraction):
    source_id, ra, dec, _ = crowded_sky(*sky)
    label = sky_groups(ra, dec) % 3  # groups of one class: then the shares can be counted
    chosen = split_by_position(source_id, ra, dec, label, fraction, 1)
    for kind in np.unique(label):
        _, sizes = np.unique(sky_groups(ra, dec)[label == kind], return_counts=True)
        count, wanted = int(chosen[label == kind].sum()), fraction * (label == kind).sum()
        if len(sizes) == 1:
            assert count == 0
        else:
            assert wanted - max(sizes.max(), 0.5) - 1e-9 <= count <= max(wanted + 0.5, 1) + sizes.max() - 1 + 1e-9
            assert 0 < count < (label == kind).sum()


def test_the_share_is_exact_where_nothing_has_neighbours():
    rng = np.random.default_rng(0)
    source_id = np.array([f"x{number}" for number in range(400)])
    ra, dec = rng.uniform(0, 360, 400), rng.uniform(-80, 80, 400)
    label = np.repeat(["common", "rare", "single"], [379, 20, 1])
    chosen = split_by_position(source_id, ra, dec, label, 0.15, 7)
    assert [int(chosen[label == kind].sum()) for kind in ("common", "rare", "single")] == [57, 3, 0]
    few = split_by_position(source_id, ra, dec, label, 0.01, 7)
    assert [int(few[label == kind].sum()) for kind in ("common", "rare", "single")] == [4, 1, 0]


def test_another_seed_is_another_split():
    source_id, ra, dec, label = crowded_sky(3, 100)
    splits = [split_by_position(source_id, ra, dec, label, 0.3, seed) for seed in (1, 1, 2)]
    assert (splits[0] == splits[1]).all()
    assert (splits[0] != splits[2]).any()


@given(st.integers(0, 2**31))
def test_two_catalogues_of_one_sky_are_split_alike(seed):
    """The same objects under other ids, a few arcsec off: no piece of sky is learnt from and validated on."""
    source_id, ra, dec, label = crowded_sky(seed, 60)
    rng = np.random.default_rng(seed)
    ids = np.concatenate([source_id, [f"J{number}" for number in rng.permutation(60)]])
    ra, dec = np.tile(ra, 2), np.concatenate([dec, dec + rng.uniform(-20, 20, 60) / 3600])
    chosen = split_by_position(ids, ra, dec, np.tile(label, 2), 0.3, seed)
    assert pairs_on_two_sides(chosen, ra, dec) == 0
    known = np.isfinite(ra[:60])
    assert (chosen[:60] == chosen[60:])[known].all()


@given(st.integers(0, 2**31))
def test_what_an_earlier_training_has_seen_is_not_validated_on(seed):
    source_id, ra, dec, label = crowded_sky(seed, 60)
    first = split_by_position(source_id, ra, dec, label, 0.3, seed)
    other_id, other_ra, other_dec, other_label = crowded_sky(seed + 1, 80)
    other_id = np.char.add("other-", other_id)
    seen = near(other_ra, other_dec, ra[~first], dec[~first])
    second = split_by_position(other_id, other_ra, other_dec, other_label, 0.3, seed, seen)
    assert not near(other_ra[second], other_dec[second], ra[~first], dec[~first]).any()
    assert pairs_on_two_sides(second, other_ra, other_dec) == 0


def test_a_forced_source_takes_its_neighbours_with_it():
    dec = np.array([0, 50, 100, 1000, 2000, 3000]) / 3600
    ids = np.array(list("abcdef"))
    forced = np.array([True, False, False, False, False, False])
    for seed in range(20):
        chosen = split_by_position(ids, np.zeros(6), dec, np.zeros(6, int), 0.9, seed, forced)
        assert chosen.tolist() == [False, False, False, True, True, True]
    everything = np.ones(6, bool)
    assert not split_by_position(ids, np.zeros(6), dec, np.zeros(6, int), 0.9, 1, everything).any()


# ---- folds


@settings(max_examples=50)
@given(st.integers(0, 2**31), st.integers(60, 150), st.integers(2, 6))
def test_folds_keep_neighbours_together_and_classes_even(seed, count, folds):
    source_id, ra, dec, _ = crowded_sky(seed, count)
    group = sky_groups(ra, dec)
    label = group % 3
    fold = folds_by_position(source_id, ra, dec, label, folds, seed)
    assert set(fold) == set(range(folds))
    assert pairs_on_two_sides(fold, ra, dec) == 0
    for kind in range(3):
        counts = np.bincount(fold[label == kind], minlength=folds)
        assert counts.max() - counts.min() <= np.bincount(group[label == kind]).max()
    order = np.random.default_rng(seed).permutation(count)
    assert (folds_by_position(source_id[order], ra[order], dec[order], label[order], folds, seed) == fold[order]).all()


def test_more_folds_than_groups_are_refused():
    ids, zero = np.array(["a", "b", "c"]), np.zeros(3)
    with pytest.raises(ValueError, match="1 groups of sources cannot be dealt to 2 folds"):
        folds_by_position(ids, zero, zero, zero, 2, 1)
    with pytest.raises(ValueError, match="give 2 to 3"):
        folds_by_position(ids, np.array([1.0, 2, 3]), zero, zero, 1, 1)
