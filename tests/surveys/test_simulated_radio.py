"""The simulated radio sky is the same everywhere, and its maps show what their truth says."""

import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import maximum_filter
from tests.surveys.sky_helpers import digest, offsets

from galgaze.config import check_config
from galgaze.errors import ConfigError
from galgaze.surveys.base import Source
from galgaze.surveys.registry import open_survey
from galgaze.surveys.simulated import radio
from galgaze.surveys.simulated.radio.truth import RANGES, SIDES
from galgaze.tasks import RADIO_FR, RADIO_MORPHOLOGIES

SCALE = 1.8
BEAM_PX = 2 * np.pi * (radio.BEAM_FWHM_ARCSEC / SCALE / 2.3548) ** 2
BENT = ("wide_angle_tail", "narrow_angle_tail")


def truths_of(morphology, count=60, least_las=0.0):
    found = [radio.radio_truth(1, f"{morphology} {i}", {morphology: 1}) for i in range(count)]
    return [truth for truth in found if truth["las_arcsec"] >= least_las]


def picture(truth, size=300):
    return radio.radio_brightness(truth, np.random.default_rng(0), size, SCALE, background=False)


def in_jet_frame(truth, size=300):
    """Along the first jet and across it, in arcsec from the core."""
    east, north = offsets(size, SCALE)
    east, north = east - truth["host_offset_east_arcsec"], north - truth["host_offset_north_arcsec"]
    angle = np.radians(truth["jet_position_angle_deg"])
    return east * np.sin(angle) + north * np.cos(angle), north * np.sin(angle) - east * np.cos(angle)


def brightest_of_each_side(truth):
    """Distance from the core of the brightest pixel on the first and on the second jet's side, over LAS / 2."""
    # The core of an FRII is often its brightest spot: Fanaroff & Riley leave it out.
    image = picture(truth | {"core_fraction": 0.0} if "lobe" in SIDES[truth["morphology"]] else truth)
    along, across = in_jet_frame(truth)
    distance = np.hypot(along, across).ravel()
    peaks = [np.argmax(np.where(side, image, -1)) for side in (along > 0, along <= 0)]
    return [2 * distance[peak] / truth["las_arcsec"] for peak in peaks]


# ------------------------------------------------------------------------------------ the same everywhere

# Of `draw_radio(7, name, 64)`. They change when the sky does: then raise SKY_VERSION.
RECORDED = {
    "J1234+5": "fa524d113cff1aa5ca9a74c17b53c20a347016f6874c2c0bd9dd32a8642c1f06",
    "a": "3a6a84f0cd4cf21285651013513aa5e3c7d5c784bc4c472f7e036d5cbcefed4d",
    "ü/../c": "e96c1841b320c4ac8441be6a251dfad4e5755315ffb0c351bd161a2dda6161a9",
}


@pytest.mark.parametrize("name", RECORDED)
def test_the_bytes_are_those_recorded(name):
    assert digest(radio.draw_radio(7, name, 64)) == RECORDED[name], "the sky changed: raise SKY_VERSION"


def test_a_source_is_the_same_in_any_order_and_whatever_the_global_generator_does():
    names = ["a", "b", "ü/../c"]
    forward = {name: digest(radio.draw_radio(3, name, 64)) for name in names}
    np.random.seed(0)
    assert {name: digest(radio.draw_radio(3, name, 64)) for name in reversed(names)} == forward
    assert len(set(forward.values())) == len(names)


def test_a_source_is_the_same_in_another_process():
    code = (
        "import hashlib, json\n"
        "from galgaze.surveys.simulated import radio\n"
        "body = radio.draw_radio(7, 'J1234+5', 150).tobytes()\n"
        "print(hashlib.sha256(body).hexdigest(), json.dumps(radio.radio_truth(7, 'J1234+5')))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = digest(radio.draw_radio(7, "J1234+5", 150))
    assert run.stdout.strip() == f"{here} {json.dumps(radio.radio_truth(7, 'J1234+5'))}"


def test_seed_and_id_both_matter():
    assert len({json.dumps(radio.radio_truth(seed, name)) for seed in (1, 2) for name in "xy"}) == 4


@pytest.mark.parametrize("size", [33, 150, 151, 300])
def test_shape_and_dtype(size):
    image = radio.draw_radio(1, "x", size)
    assert image.shape == (size, size)
    assert image.dtype == np.float32
    assert np.isfinite(image).all()


def test_a_larger_image_shows_the_same_sky():
    truth = radio.radio_truth(1, "x")
    small, large = (radio.radio_brightness(truth, np.random.default_rng(0), size, SCALE) for size in (100, 300))
    np.testing.assert_allclose(large[100:200, 100:200], small, atol=1e-9)


# ---------------------------------------------------------------------------------------------- truth


@pytest.fixture(scope="module")
def mixed():
    return [radio.radio_truth(1, f"source {i}") for i in range(2000)]


def test_truths_have_the_same_keys_and_are_json(mixed):
    assert all(list(truth) == list(mixed[0]) for truth in mixed)
    assert json.loads(json.dumps(mixed)) == mixed
    assert all(isinstance(value, str | int | float | None) for truth in mixed for value in truth.values())


def test_classes_follow_from_morphologies(mixed):
    for truth in mixed:
        label = RADIO_MORPHOLOGIES[truth["morphology"]]
        assert truth["class_label"] == label
        assert truth["class_index"] == (None if label is None else RADIO_FR.classes.index(label))


def test_the_default_mix_is_respected(mixed):
    assert set(radio.DEFAULT_MIX) == set(RADIO_MORPHOLOGIES)
    total = sum(radio.DEFAULT_MIX.values())
    for morphology, share in radio.DEFAULT_MIX.items():
        expected = len(mixed) * share / total
        count = sum(truth["morphology"] == morphology for truth in mixed)
        assert abs(count - expected) < 4 * np.sqrt(expected)


def test_every_parameter_stays_in_its_range(mixed):
    for truth in mixed:
        assert all(truth[key] is None or low <= truth[key] <= high for key, (low, high) in RANGES.items())


def test_component_fluxes_add_up(mixed):
    for truth in mixed:
        parts = [truth[key] or 0 for key in ("core_flux_jy", "lobe_1_flux_jy", "lobe_2_flux_jy", "inner_lobes_flux_jy")]
        assert sum(parts) == pytest.approx(truth["flux_jy"], abs=1e-5)
        for number in (1, 2):
            assert (truth[f"hotspot_{number}_flux_jy"] or 0) <= (truth[f"lobe_{number}_flux_jy"] or 0)


def test_sizes_in_kpc_are_those_of_the_cosmology(mixed):
    from astropy.cosmology import Planck18

    for truth in mixed[:20]:
        expected = truth["las_arcsec"] * Planck18.kpc_proper_per_arcmin(truth["redshift"]).value / 60
        assert truth["las_kpc"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("morphology", "las_arcsec", "flux_jy", "redshift"),
    # MiraBest's medians, of the half that the sky was made with
    [("fri", 58.1, 0.050, 0.158), ("frii", 27.1, 0.068, 0.226)],
)
def test_sizes_fluxes_and_redshifts_are_like_mirabest(morphology, las_arcsec, flux_jy, redshift):
    truths = truths_of(morphology, 400)
    for key, expected in (("las_arcsec", las_arcsec), ("flux_jy", flux_jy), ("redshift", redshift)):
        # the real fluxes were measured above 3 sigma: a little of each is missing
        assert np.median([truth[key] for truth in truths]) == pytest.approx(expected, rel=0.25)
    correlation = np.corrcoef([[np.log(truth[key]) for truth in truths] for key in ("las_arcsec", "redshift")])
    assert -0.45 < correlation[0, 1] < -0.1  # the farther, the smaller


# ----------------------------------------------------------------------------------------------- mixes


@pytest.mark.parametrize("morphology", RADIO_MORPHOLOGIES)
def test_a_mix_of_one_morphology_gives_only_that(morphology):
    zeros = dict.fromkeys(RADIO_MORPHOLOGIES, 0.0)
    for mix in ({morphology: 0.3}, zeros | {morphology: 1}):
        assert {radio.radio_truth(1, str(i), mix)["morphology"] for i in range(20)} == {morphology}


@given(st.dictionaries(st.sampled_from(list(RADIO_MORPHOLOGIES)), st.floats(0, 1e300), min_size=1), st.text())
@settings(max_examples=50, deadline=None)
def test_any_good_mix_gives_a_morphology_with_a_share(mix, source_id):
    if sum(mix.values()) == 0:
        with pytest.raises(ValueError, match="share above 0"):
            radio.radio_truth(1, source_id, mix)
    else:
        assert mix[radio.radio_truth(1, source_id, mix)["morphology"]] > 0


@pytest.mark.parametrize(
    ("mix", "said"),
    [
        ({"fri": 1, "friii": 1}, "'friii', which is not known; known are: fri, wide_angle_tail"),
        ({"wide_angle": 1}, "did you mean 'wide_angle_tail'?"),
        ({"fri": -1.0}, "share of fri is -1.0; give a number from 0 on"),
        ({"fri": float("nan")}, "share of fri is nan; give a number from 0 on"),
        ({"frii": float("inf")}, "share of frii is inf; give a number from 0 on"),
        ({"fri": 0.0, "frii": 0.0}, "share above 0"),
        ({}, "share above 0"),
    ],
)
def test_bad_mixes_are_named(mix, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        radio.radio_truth(1, "x", mix)
    survey = {"kind": "simulated_first", "mix": mix}
    with pytest.raises(ConfigError) as caught:
        check_config({"surveys": {"sky": survey}, "fields": {}, "tasks": {}})
    assert "surveys.sky.mix" in str(caught.value)
    if all(math.isfinite(share) for share in mix.values()):
        assert said in str(caught.value)
    else:
        assert "should be a finite number" in str(caught.value)


def test_the_survey_passes_its_mix_on():
    configured = {"surveys": {"sky": {"kind": "simulated_first", "size_px": 64, "mix": {"compact": 2}}}}
    survey = open_survey(check_config(configured | {"fields": {}, "tasks": {}}).surveys["sky"])
    assert survey.truth("x")["morphology"] == "compact"
    body, _ = survey.download(Source("x", 180.0, 10.0))
    drawn = survey.decode(body, Source("x", 180.0, 10.0)).pixels[0]
    # zeros come as the faintest value: in a survey's file they mean "not observed"
    np.testing.assert_allclose(drawn, radio.draw_radio(1, "x", 64, mix={"compact": 1}), atol=1e-11)


@pytest.mark.parametrize("key", [*RANGES, "morphology"])
@pytest.mark.parametrize("value", [float("nan"), -1e6, 1e6, "much", None])
def test_a_truth_that_cannot_be_drawn_is_refused(key, value):
    truth = next(
        truth
        for truth in (radio.radio_truth(1, name, {name: 1}) for name in ("hybrid", "double_double"))
        if truth[key] is not None
    )
    with pytest.raises(ValueError, match=f"^{key}: "):
        picture(truth | {key: value})


@given(
    st.sampled_from(["fri", "hybrid", "double_double", "compact"]),
    st.fixed_dictionaries({key: st.floats(low, high) for key, (low, high) in RANGES.items()}),
)
@settings(max_examples=60, deadline=None)
def test_any_truth_within_the_ranges_can_be_drawn(morphology, parameters):
    image = picture(radio.radio_truth(1, "x", {morphology: 1}) | parameters, 64)
    assert np.isfinite(image).all()
    assert image.min() >= 0
    assert image.sum() / BEAM_PX <= parameters["flux_jy"] * 1.01 + 1e-9


# ----------------------------------------------------------------------------------------------- shapes


@pytest.mark.parametrize("morphology", RADIO_MORPHOLOGIES)
def test_flux_is_conserved(morphology):
    for truth in truths_of(morphology, 12):
        assert picture(truth, 400).sum() / BEAM_PX == pytest.approx(truth["flux_jy"], rel=0.01)


@pytest.mark.parametrize("morphology", [name for name, sides in SIDES.items() if sides])
def test_no_two_points_of_a_spine_are_farther_apart_than_the_las(morphology):
    for truth in truths_of(morphology, 20):
        points = np.concatenate([jet[:2].T for jet in radio.spines(truth, np.random.default_rng(0))])
        extent = np.linalg.norm(points[:, None] - points[None], axis=2).max()
        assert extent <= truth["las_arcsec"] * (1 + 1e-9)
        assert extent > 0.97 * truth["las_arcsec"]


def test_straight_sources_have_their_las_along_their_position_angle():
    east, north = offsets(300, SCALE)
    for truth in truths_of("frii", 40, least_las=40):
        truth |= {"bend_deg": 0.0, "twist_deg": 0.0, "meander_deg": 0.0, "hotspot_fraction": 1.0}
        image = picture(truth | {"core_fraction": 0.0})
        along, _ = in_jet_frame(truth)
        ends = [np.argmax(np.where(side, image, -1)) for side in (along > 0, along <= 0)]
        de, dn = (np.subtract(*axis.ravel()[ends]) for axis in (east, north))
        assert np.hypot(de, dn) == pytest.approx(truth["las_arcsec"], abs=2 * SCALE)
        turned = np.degrees(np.arctan2(de, dn)) - truth["jet_position_angle_deg"]
        assert abs((turned + 180) % 360 - 180) < np.degrees(2 * SCALE / truth["las_arcsec"])


def test_fri_are_brightest_near_the_core_and_frii_at_the_ends():
    # Fanaroff & Riley's ratio: distance of the two sides' brightest places over the size. A few plumes have
    # a bright knot far out, as MiraBest's do.
    for morphology, least_share in {"fri": 0.88, "narrow_angle_tail": 0.93, "wide_angle_tail": 0.78}.items():
        ratios = np.array([np.mean(brightest_of_each_side(t)) for t in truths_of(morphology, 80, 40)])
        assert (ratios < 0.5).mean() >= least_share, morphology
    ratios = np.array([np.mean(brightest_of_each_side(truth)) for truth in truths_of("frii", 80, 40)])
    assert (ratios > 0.5).mean() >= 0.95


def test_hybrids_have_one_side_of_each_kind():
    ratios = np.array([brightest_of_each_side(truth) for truth in truths_of("hybrid", 120, 40)])
    assert (ratios[:, 0] < 0.5).mean() > 0.8
    assert (ratios[:, 1] > 0.5).mean() > 0.95


def test_double_doubles_have_an_inner_and_an_outer_pair():
    for truth in truths_of("double_double", 40, least_las=90):
        image = picture(truth | {"core_fraction": 0.0})
        along, _ = in_jet_frame(truth)
        peaks = (maximum_filter(image, 3) == image) & (image > 0.02 * image.max())
        for side in (along > 0, along < 0):
            distances = np.abs(along[peaks & side]) / truth["las_arcsec"]
            assert (distances < 0.35).any()
            assert (distances > 0.35).any()


@pytest.mark.parametrize("morphology", BENT)
def test_tails_bend_to_the_same_side_by_the_angle_of_the_truth(morphology):
    for truth in truths_of(morphology, 30, least_las=35):
        straight_tails = truth | {"twist_deg": 0.0, "meander_deg": 0.0}
        jets = radio.spines(straight_tails, np.random.default_rng(0))
        ends = [jet[:2, -1] - jet[:2, -2] for jet in jets]
        cosine = ends[0] @ ends[1] / np.linalg.norm(ends[0]) / np.linalg.norm(ends[1])
        assert np.degrees(np.arccos(cosine)) == pytest.approx(truth["opening_angle_deg"], abs=3)
        # in the picture, both sides' light lies to the side of the bend
        image, (along, across) = picture(straight_tails), in_jet_frame(truth)
        for side in (along > 0, along < 0):
            assert (image * across)[side].sum() * np.sign(truth["bend_deg"]) > 0


def test_narrow_tails_are_narrower_than_wide_ones():
    wide, narrow = ([truth["opening_angle_deg"] for truth in truths_of(name)] for name in BENT)
    assert np.median(narrow) < 45 < np.median(wide)


def test_compact_sources_are_not_resolved():
    for truth in truths_of("compact", 20):
        image = picture(truth, 100)
        assert image.max() == pytest.approx(truth["flux_jy"], rel=0.25)  # Jy/beam of a point are its Jy
        half_light = np.sqrt((image > image.max() / 2).sum() * 4 / np.pi) * SCALE
        assert half_light == pytest.approx(radio.BEAM_FWHM_ARCSEC, rel=0.25)


def test_sources_stand_out_of_the_noise(mixed):
    assert np.mean([picture(truth).max() > 10 * truth["noise_jy_per_beam"] for truth in mixed[:60]]) > 0.95


# ------------------------------------------------------------------------------------------ noise, sidelobes


def quiet_corners():
    images = np.stack([radio.draw_radio(1, f"quiet {i}") for i in range(12)])
    corners = np.concatenate([images[:, :60, :60], images[:, -60:, -60:]])
    return corners[corners.max(axis=(1, 2)) < 6 * radio.NOISE_JY_PER_BEAM]


def test_noise_has_first_s_depth_and_correlation():
    quiet = quiet_corners()
    assert len(quiet) >= 8
    assert np.median(quiet.std(axis=(1, 2))) == pytest.approx(radio.NOISE_JY_PER_BEAM, rel=0.15)
    # measured on 1946 blank corners of MiraBest's maps; a smoothed white noise has 0.86, 0.54, 0.25, 0.02
    centred = quiet - quiet.mean(axis=(1, 2), keepdims=True)
    for lag, expected in {1: 0.73, 2: 0.34, 3: 0.21, 5: 0.23}.items():
        products = [(centred * np.roll(centred, lag, axis))[:, lag:, lag:].mean() for axis in (1, 2)]
        assert np.mean(products) / centred.var() == pytest.approx(expected, abs=0.1)


def test_the_noise_of_opposite_edges_has_nothing_in_common():
    images = [radio.draw_radio(1, f"edge {i}", 64, mix={"compact": 1}) for i in range(40)]
    pairs = [(image[:, 0] - np.median(image), image[:, -1] - np.median(image)) for image in images]
    pairs = [pair for pair in pairs if np.abs(pair).max() < 6 * radio.NOISE_JY_PER_BEAM]
    assert abs(np.mean([np.corrcoef(pair)[0, 1] for pair in pairs])) < 0.15


def test_sidelobes_take_no_flux_and_lie_in_three_directions():
    from galgaze.surveys.simulated.radio.scene import _filters

    sidelobes, _ = _filters(200, SCALE, 3)
    point = picture(radio.radio_truth(1, "x", {"compact": 1}) | {"flux_jy": 1.0}, 200)
    pattern = np.fft.irfft2(sidelobes * np.fft.rfft2(point), point.shape)
    assert abs(pattern.sum()) < 1e-6 * point.sum()
    east, north = offsets(200, SCALE)
    ring = (np.hypot(east, north) > 15) & (np.hypot(east, north) < 40)
    angle = np.degrees(np.arctan2(east, north)) % 60
    by_angle = [pattern[ring & (np.abs(angle - centre) < 5)].mean() for centre in range(5, 60, 10)]
    assert max(by_angle) > 0 > min(by_angle)  # stripes and bowls
