"""The simulated optical sky is the same everywhere, and its pictures show what its truth says."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import zoom
from tests.surveys.sky_helpers import angle_between, digest, offsets, shape_of

from galgaze.surveys.simulated import optical
from galgaze.surveys.simulated.noise import stream
from galgaze.surveys.simulated.optical import population, scene
from galgaze.surveys.simulated.optical.truth import LIGHT, component_fluxes
from galgaze.tasks import OPTICAL_MORPHOLOGY

SIZE, SCALE = 256, 0.262
CLASSES = OPTICAL_MORPHOLOGY.classes


def truth_of(seed, source_id, **settings):
    return optical.optical_truth(seed, source_id, **settings)


def draw(seed, source_id, *size, **settings):
    return optical.draw_optical(truth_of(seed, source_id, **settings), seed, source_id, *size)


def galaxies_of(label, number=6):
    return [truth_of(1, f"{label} {i}", mix={label: 1}) for i in range(number)]


def picture(truth, size=SIZE, field=False):
    return optical.optical_brightness(truth, np.random.default_rng(0), size, field=field)


def undisturbed(truth):
    """Without dust and lopsidedness, which move light about."""
    return truth | {"dust_optical_depth_r": 0.0, "lopsidedness": 0.0, "flocculence": truth["flocculence"] and 0.05}


# ------------------------------------------------------------------------------------ the same everywhere

# Of the pixels (256 x 256 of 0.262 arcsec) of the source "recorded" of seed 3, by class.
# If these change, the sky has changed: raise SKY_VERSION.
RECORDED = {
    "barred_spiral": "13a07ff3ae1dd7176426893ef8cc77af391f90e220726063510de1d3c359ffbe",
    "merging": "d66273a2bacb2279485a385a386946bab228e05ea76118f3959a2a7d6cc0e5b6",
    "round_smooth": "ce1c93d54fe9c829d3085ca4af9787f6d371aedbbf103f87cbe2d690c0d20dcd",
    "edge_on_with_bulge": "d69259c2b0ac95d883d60bf3c647cc28d215478e46728a0f21a5e1f2cf4991fd",
}


@pytest.mark.parametrize(("label", "recorded"), RECORDED.items())
def test_the_sky_is_the_one_that_was_recorded(label, recorded):
    assert optical.SKY_VERSION == 2
    assert digest(draw(3, "recorded", mix={label: 1})) == recorded


def test_a_source_is_the_same_in_any_order_and_whatever_the_global_generator_does():
    names = ["a", "b", "ü/../c"]
    forward = {name: digest(draw(3, name)) for name in names}
    np.random.seed(0)
    assert {name: digest(draw(3, name)) for name in reversed(names)} == forward
    assert len(set(forward.values())) == len(names)


def test_a_source_is_the_same_in_another_process():
    code = (
        "import hashlib, json\n"
        "from galgaze.surveys.simulated import optical\n"
        "truth = optical.optical_truth(7, 'J1234+5')\n"
        "body = optical.draw_optical(truth, 7, 'J1234+5').tobytes()\n"
        "print(hashlib.sha256(body).hexdigest(), json.dumps(truth))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == f"{digest(draw(7, 'J1234+5'))} {json.dumps(truth_of(7, 'J1234+5'))}"


def test_seed_and_id_and_survey_all_matter():
    assert truth_of(1, "x") != truth_of(2, "x")
    assert truth_of(1, "x") != truth_of(1, "y")
    assert stream("s", 1, 1, "1", "x").random() != stream("s", 1, 11, "", "x").random()


@pytest.mark.parametrize(("size", "scale"), [(256, 0.262), (64, 1.048), (151, 0.262), (64, 0.262), (512, 0.131)])
def test_shape_and_dtype(size, scale):
    image = draw(1, "x", size, scale)
    assert image.shape == (3, size, size)
    assert image.dtype == np.float32
    assert np.isfinite(image).all()


def test_a_smaller_image_shows_the_middle_of_the_larger_one():
    # Only the galaxy: noise is drawn for the image asked for.
    truth = galaxies_of("merging", 1)[0]
    large, small = picture(truth, 256), picture(truth, 128)
    np.testing.assert_allclose(small, large[:, 64:192, 64:192], atol=1e-6 * large.max())


# ---------------------------------------------------------------------------------------------- truth


def test_truth_is_uniform_json_and_holds_every_class_about_equally_often():
    truths = [truth_of(1, f"source {i}") for i in range(400)]
    assert all(list(truth) == list(truths[0]) for truth in truths)
    assert json.loads(json.dumps(truths)) == truths
    assert all(isinstance(v, str | int | float | None) for truth in truths for v in truth.values())
    assert all(CLASSES[truth["class_index"]] == truth["class_label"] for truth in truths)
    counts = np.bincount([truth["class_index"] for truth in truths], minlength=len(CLASSES))
    assert (np.abs(counts - 40) < 4 * np.sqrt(40)).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**63), st.text(max_size=40))
def test_any_seed_and_id_give_a_galaxy_whose_light_adds_up(seed, source_id):
    truth = truth_of(seed, source_id)
    fluxes = component_fluxes(truth)
    assert all((flux > 0).all() for flux in fluxes.values())
    assert sum(fluxes.values())[1] == pytest.approx(10 ** (0.4 * (22.5 - truth["r_mag"])), rel=1e-4)
    components = [truth[f"{name}_flux_r_nanomaggy"] for name in ("body", *LIGHT)]
    assert sum(value or 0 for value in components) == pytest.approx(truth["flux_r_nanomaggy"], rel=1e-4)


def test_truth_stays_in_the_ranges_of_its_class():
    for label, (low, high) in {
        "round_smooth": (0.84, 1),
        "in_between_smooth": (0.5, 0.8),
        "cigar_smooth": (0.22, 0.48),
    }.items():
        assert all(low <= truth["axis_ratio"] <= high for truth in galaxies_of(label))
    assert all(t["pitch_angle_deg"] <= 17 for t in galaxies_of("unbarred_tight_spiral"))
    assert all(t["pitch_angle_deg"] >= 19 for t in galaxies_of("unbarred_loose_spiral"))
    assert all(t["bulge_fraction"] >= 0.15 for t in galaxies_of("edge_on_with_bulge"))
    assert all(t["bulge_fraction"] <= 0.05 for t in galaxies_of("edge_on_without_bulge"))


def test_bars_have_a_strength_and_only_they_have_lengths():
    barred = galaxies_of("barred_spiral", 40)
    assert {truth["bar_strength"] for truth in barred} == {"weak", "strong"}
    others = [truth for label in CLASSES if label != "barred_spiral" for truth in galaxies_of(label, 20)]
    assert {truth["bar_strength"] for truth in others} == {"none", "weak"}
    for truth in barred + others:
        has_bar = truth["bar_strength"] != "none"
        assert [truth[key] is not None for key in truth if key.startswith("bar_") and key != "bar_strength"] == (
            [has_bar] * (sum(key.startswith("bar_") for key in truth) - 1)
        ), truth["class_label"]
        if has_bar:
            assert truth["bar_length_kpc"] / truth["bar_length_arcsec"] == pytest.approx(
                truth["half_light_radius_kpc"] / truth["half_light_radius_arcsec"], rel=1e-4
            )


def test_kpc_are_those_of_astropy():
    from astropy.cosmology import Planck18

    truth = galaxies_of("barred_spiral", 1)[0]
    scale = Planck18.kpc_proper_per_arcmin(truth["redshift"]).value / 60
    assert truth["bar_length_kpc"] == pytest.approx(scale * truth["bar_length_arcsec"], rel=1e-3)


def test_sizes_scatter_about_the_published_relation():
    # Shen et al. 2003 for late types of M_r = -20 and -22, early types of -22, by hand.
    assert population.half_light_radius_kpc(np.array([-20.0, -22.0]), True) == pytest.approx([2.565, 5.26], rel=0.01)
    assert population.half_light_radius_kpc(-22.0, False) == pytest.approx(4.57, rel=0.01)
    rng = np.random.default_rng(0)
    drawn = [population.draw_galaxy(rng, True, 0.01, 100) for _ in range(1500)]
    assert all(13.0 <= galaxy["r_mag"] <= 17.5 and galaxy["redshift"] <= 0.15 for galaxy in drawn)
    kpc = np.array([g["circular_half_light_radius_arcsec"] for g in drawn])
    kpc *= [float(population.kpc_per_arcsec(g["redshift"])) for g in drawn]
    expected = population.half_light_radius_kpc(np.array([g["absolute_r_mag"] for g in drawn]), True)
    assert np.median(kpc / expected) == pytest.approx(1, abs=0.05)
    assert 0.25 < np.std(np.log(kpc / expected)) < 0.46


def test_the_counts_grow_as_in_a_flux_limited_sample():
    # Euclid: ten to the 0.6 a magnitude, a little less where redshift and knee of the luminosities matter.
    rng = np.random.default_rng(1)
    r_mag = np.array([population.draw_galaxy(rng, True, 0.01, 100)["r_mag"] for _ in range(2000)])
    bright, faint = np.sum((r_mag > 15) & (r_mag < 16)), np.sum((r_mag > 16) & (r_mag < 17))
    assert 0.4 < np.log10(faint / bright) < 0.65


def test_a_mix_of_one_class_gives_this_class_and_shares_are_kept():
    assert {t["class_label"] for t in galaxies_of("merging", 20)} == {"merging"}
    mix = {"merging": 3, "round_smooth": 1}
    labels = [truth_of(1, f"{i}", mix=mix)["class_label"] for i in range(400)]
    assert set(labels) == set(mix)
    assert labels.count("merging") == pytest.approx(300, abs=40)


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        ({"barred": 1}, "barred_spiral"),
        ({"merging": -1}, "merging"),
        ({"merging": float("nan")}, "merging"),
        ({"merging": 0}, "above 0"),
        ({}, "above 0"),
    ],
)
def test_a_bad_mix_is_refused(mix, message):
    with pytest.raises(ValueError, match=message):
        truth_of(1, "x", mix=mix)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"axis_ratio": 1.2}, "axis_ratio is 1.2"),
        ({"half_light_radius_arcsec": -1.0}, "half_light_radius_arcsec is -1.0; it must be above 0"),
        ({"r_mag": float("nan")}, "r_mag is nan"),
        ({"arm_fraction": 2.0}, "arm_fraction"),
        ({"class_label": "barred"}, "barred_spiral"),
    ],
)
def test_a_truth_out_of_range_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        picture(galaxies_of("barred_spiral", 1)[0] | change)


# -------------------------------------------------------------------------------------------- pictures


def test_the_pictured_bar_has_the_length_and_angle_of_the_truth():
    # Over a filled ellipse of (1 - m^2)^n the variance along an axis a is a^2 / (2 (n + 2)).
    per_variance = 2 * (optical.BAR_FERRERS_INDEX + 2)
    east, north = offsets(512, 0.131)
    for truth in galaxies_of("barred_spiral", 20):
        angle, major, minor = shape_of(optical.bar_brightness(truth, east, north), east, north)
        assert 2 * np.sqrt(per_variance * major) == pytest.approx(truth["bar_length_arcsec"], rel=0.02)
        assert np.sqrt(minor / major) == pytest.approx(truth["bar_axis_ratio"], rel=0.03)
        assert angle_between(angle, truth["bar_position_angle_deg"]) < 1


def test_the_drawn_galaxy_has_its_bar_where_the_truth_says():
    east, north = offsets(SIZE, SCALE)
    for truth in galaxies_of("barred_spiral", 8):
        # The same galaxy with its bar and with a spherical bulge of the bar's light instead.
        without = truth | {"bar_fraction": 0.0, "bulge_fraction": truth["bulge_fraction"] + truth["bar_fraction"]}
        difference = picture(truth)[1] - picture(without)[1]
        middle = np.hypot(east, north) < 0.6 * truth["bar_length_arcsec"]
        angle, major, minor = shape_of(np.maximum(difference, 0) * middle, east, north)
        if minor / major < 0.5:  # a foreshortened bar is round
            assert angle_between(angle, truth["bar_position_angle_deg"]) < 10


@pytest.mark.parametrize("label", ["cigar_smooth", "edge_on_without_bulge"])
def test_position_angles_are_east_of_north_with_east_at_column_0(label):
    east, north = offsets(SIZE, SCALE)
    near = np.hypot(east, north) < 25
    for truth in galaxies_of(label, 5):
        angle, *_ = shape_of(picture(undisturbed(truth))[1] * near, east, north)
        assert angle_between(angle, truth["position_angle_deg"]) < 3


def test_north_east_is_up_and_to_column_0():
    truth = galaxies_of("edge_on_without_bulge", 1)[0] | {"position_angle_deg": 45.0, "half_light_radius_arcsec": 9.0}
    band = picture(truth)[1]
    assert band[SIZE // 2 + 30, SIZE // 2 - 31] > 10 * band[SIZE // 2 + 30, SIZE // 2 + 30]


@pytest.mark.parametrize("label", CLASSES)
def test_without_dust_the_light_adds_up_to_the_fluxes_of_the_truth(label):
    truth = galaxies_of(label, 1)[0] | {"dust_optical_depth_r": 0.0}
    wide = picture(truth, size=600).sum(axis=(1, 2))
    expected = [truth[f"flux_{band}_nanomaggy"] for band in "grz"]
    np.testing.assert_allclose(wide, expected, rtol=0.02)


def test_dust_dims_and_reddens():
    truth = galaxies_of("edge_on_without_bulge", 1)[0]
    clear, dusty = (picture(truth | {"dust_optical_depth_r": depth}, size=512).sum(axis=(1, 2)) for depth in (0.0, 2.0))
    dimming = dusty / clear
    assert dimming[0] < dimming[1] < dimming[2] < 1


def test_arms_wind_as_the_truth_says():
    """Along a logarithmic spiral of the truth's pitch angle the arms keep their phase."""
    for truth in galaxies_of("unbarred_loose_spiral", 4):
        truth = undisturbed(truth) | {"axis_ratio": 1.0, "position_angle_deg": 0.0, "n_arms": 2, "clump_fraction": 0.0}
        band = picture(truth)[1]
        scale_length = truth["half_light_radius_arcsec"] / 1.678
        radii = np.linspace(1.2 * truth["arm_start_arcsec"], min(2.2 * scale_length, truth["arm_end_arcsec"]), 12)
        angle = np.linspace(0, 2 * np.pi, 180, endpoint=False)
        phases = []
        for radius in radii:
            # along the line of nodes is north, across is west for a position angle of 0
            column = (SIZE - 1) / 2 + radius * np.sin(angle) / SCALE
            row = (SIZE - 1) / 2 + radius * np.cos(angle) / SCALE
            profile = band[np.round(row).astype(int), np.round(column).astype(int)]
            phases.append(np.angle(np.sum(profile * np.exp(2j * angle))))
        expected = truth["arm_winding"] * 2 * np.log(radii) / np.tan(np.radians(truth["pitch_angle_deg"]))
        slope = np.polyfit(expected, np.unwrap(phases), 1)[0]
        assert slope == pytest.approx(1, abs=0.2)


def test_the_noise_has_the_depth_and_the_correlation_of_decals():
    images = []
    for i in range(3):
        truth = truth_of(1, f"{i}", mix={"round_smooth": 1}, artefact_fraction=0.0)
        noise = {f"noise_{band}_nanomaggy": value for band, value in zip("grz", [0.003, 0.005, 0.012], strict=True)}
        truth |= noise
        image = optical.draw_optical(truth, 1, f"{i}")
        images.append(image - optical.optical_brightness(truth, scene.chance(1, f"{i}", "scene"), SIZE))
    noise = np.stack(images, axis=1)  # (3, images, H, W)
    np.testing.assert_allclose(noise.std(axis=(1, 2, 3)), [0.003, 0.005, 0.012], rtol=0.02)
    for lag, expected in ((1, 0.255), (2, -0.08), (3, 0.0)):
        correlation = (noise[..., lag:] * noise[..., :-lag]).mean() / (noise**2).mean()
        assert correlation == pytest.approx(expected, abs=0.03)


def test_depth_and_seeing_scatter_about_those_of_decals():
    truths = [truth_of(1, f"{i}") for i in range(300)]
    for band, noise, fwhm in zip("grz", [0.0030, 0.0050, 0.011], [1.29, 1.18, 1.11], strict=True):
        assert np.median([t[f"noise_{band}_nanomaggy"] for t in truths]) == pytest.approx(noise, rel=0.1)
        assert np.median([t[f"psf_fwhm_{band}_arcsec"] for t in truths]) == pytest.approx(fwhm, rel=0.03)


def test_a_point_has_the_seeing_of_its_band():
    canvas = scene.Canvas(129)
    canvas.add_blobs(np.ones((1, 3)), [0.0], [0.0])
    for band, fwhm in zip(canvas.seen([1.4, 1.2, 1.0]), [1.4, 1.2, 1.0], strict=True):
        fine = zoom(band, 8, order=3)
        assert 2 * np.sqrt((fine > fine.max() / 2).sum() / np.pi) * SCALE / 8 == pytest.approx(fwhm, abs=0.05)


@pytest.mark.parametrize(("size", "scale", "factor"), [(64, 4 * SCALE, 4), (84, 3 * SCALE, 3)])
def test_a_coarser_pixel_holds_the_mean_of_native_ones(size, scale, factor):
    truth = galaxies_of("barred_spiral", 1)[0]
    side = scene.side_needed(size, scale)
    coarse = scene.resampled(picture(truth, side), size, scale)
    native = picture(truth, size * factor)
    mean = native.reshape(3, size, factor, size, factor).mean(axis=(2, 4))
    np.testing.assert_allclose(coarse, mean, atol=0.01 * mean.max())


def test_a_finer_pixel_shows_the_same_brightness():
    truth = galaxies_of("round_smooth", 1)[0]
    fine = scene.resampled(picture(truth, scene.side_needed(511, SCALE / 2)), 511, SCALE / 2)
    native = picture(truth, 256)
    np.testing.assert_allclose(fine[:, ::2, ::2], native, atol=0.005 * native.max())


# ------------------------------------------------------------------------------------------- artefacts


def with_artefact(kind):
    truth = truth_of(1, "x", mix={"round_smooth": 1}) | {"artefact": kind}
    return optical.draw_optical(truth, 1, "x")


def test_artefacts_occur_as_often_as_asked_for():
    assert {truth_of(1, f"{i}", artefact_fraction=0.0)["artefact"] for i in range(50)} == {"none"}
    kinds = [truth_of(1, f"{i}", artefact_fraction=1.0)["artefact"] for i in range(60)]
    assert set(kinds) == {"bleed_trail", "satellite_trail", "missing_band", "partial_coverage"}


def test_unobserved_pixels_and_only_they_are_0():
    assert (with_artefact("none") != 0).all()
    missing = (with_artefact("missing_band") == 0).mean(axis=(1, 2))
    assert sorted(missing) == [0, 0, 1]
    blank = with_artefact("partial_coverage") == 0
    assert 0.02 < blank.mean() < 0.98
    assert (blank == blank[0]).all()


@pytest.mark.parametrize("kind", ["bleed_trail", "satellite_trail"])
def test_trails_are_seen_but_not_on_the_galaxy(kind):
    difference = np.abs(with_artefact(kind) - with_artefact("none"))
    assert difference.max() > 0.01
    assert np.median(difference) < 0.01
