"""The simulated sky is the same everywhere, and its pictures show what its truth says."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest

from galgaze.surveys.simulated import optical
from galgaze.surveys.simulated.noise import stream
from galgaze.tasks import OPTICAL_MORPHOLOGY

SIZE, SCALE = 256, 0.262
IDS = [f"source {i}" for i in range(400)]


@pytest.fixture(scope="module")
def galaxies():
    return [optical.optical_truth(1, source_id) for source_id in IDS]


def of_class(truths, label):
    return [truth for truth in truths if truth["class_label"] == label]


def offsets(size=SIZE, scale=SCALE):
    """East and north of the pixels: column 0 is east, row 0 is south."""
    offset = (np.arange(size) - (size - 1) / 2) * scale
    return -offset[None, :] + np.zeros((size, 1)), offset[:, None] + np.zeros((1, size))


def shape_of(image, east, north):
    """Position angle (deg) and the two variances (arcsec^2, larger first) from second moments."""
    weights = image / image.sum()
    de, dn = east - (weights * east).sum(), north - (weights * north).sum()
    cross = (weights * de * dn).sum()
    covariance = np.array([[(weights * de * de).sum(), cross], [cross, (weights * dn * dn).sum()]])
    variances, directions = np.linalg.eigh(covariance)
    return np.degrees(np.arctan2(*directions[:, 1])) % 180, variances[1], variances[0]


def angle_between(a, b):
    return abs((a - b + 90) % 180 - 90)


def picture(truth, field=False, size=SIZE, scale=SCALE):
    return optical.optical_brightness(truth, np.random.default_rng(0), size, scale, field=field)


def digest(*arrays):
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


# ------------------------------------------------------------------------------------ the same everywhere


def test_a_source_is_the_same_in_any_order_and_whatever_the_global_generator_does():
    names = ["a", "b", "ü/../c"]
    forward = {n: digest(optical.draw_optical(3, n)) for n in names}
    np.random.seed(0)
    backward = {n: digest(optical.draw_optical(3, n)) for n in reversed(names)}
    assert backward == forward
    assert len(set(forward.values())) == len(names)


def test_a_source_is_the_same_in_another_process():
    code = (
        "import hashlib, json\n"
        "from galgaze.surveys.simulated import optical\n"
        "body = optical.draw_optical(7, 'J1234+5').tobytes()\n"
        "print(hashlib.sha256(body).hexdigest(), json.dumps(optical.optical_truth(7, 'J1234+5')))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    here = digest(optical.draw_optical(7, "J1234+5"))
    assert run.stdout.strip() == f"{here} {json.dumps(optical.optical_truth(7, 'J1234+5'))}"


def test_seed_and_id_and_survey_all_matter():
    assert optical.optical_truth(1, "x") != optical.optical_truth(2, "x")
    assert optical.optical_truth(1, "x") != optical.optical_truth(1, "y")
    assert stream("s", 1, 1, "1", "x").random() != stream("s", 1, 11, "", "x").random()


@pytest.mark.parametrize(("size", "scale"), [(256, 0.262), (64, 1.048), (151, 0.262), (64, 0.262)])
def test_optical_shape_and_dtype(size, scale):
    image = optical.draw_optical(1, "x", size, scale)
    assert image.shape == (3, size, size)
    assert image.dtype == np.float32
    assert np.isfinite(image).all()


# ---------------------------------------------------------------------------------------------- truth


def test_truth_is_uniform_json_and_holds_every_class_about_equally_often(galaxies):
    assert all(list(truth) == list(galaxies[0]) for truth in galaxies)
    assert json.loads(json.dumps(galaxies)) == galaxies
    assert all(isinstance(v, str | int | float | None) for truth in galaxies for v in truth.values())
    classes = OPTICAL_MORPHOLOGY.classes
    assert all(classes[truth["class_index"]] == truth["class_label"] for truth in galaxies)
    counts = np.bincount([truth["class_index"] for truth in galaxies], minlength=len(classes))
    expected = len(galaxies) / len(classes)
    assert (np.abs(counts - expected) < 4 * np.sqrt(expected)).all()


def test_truth_stays_in_its_ranges(galaxies):
    for label, (low, high) in {
        "round_smooth": (0.85, 1),
        "in_between_smooth": (0.5, 0.8),
        "cigar_smooth": (0.2, 0.4),
    }.items():
        assert all(low <= truth["axis_ratio"] <= high for truth in of_class(galaxies, label))
    assert all(t["pitch_angle_deg"] <= 15 for t in of_class(galaxies, "unbarred_tight_spiral"))
    assert all(t["pitch_angle_deg"] >= 22 for t in of_class(galaxies, "unbarred_loose_spiral"))
    assert all((t["bar_length_arcsec"] is None) == (t["class_label"] != "barred_spiral") for t in galaxies)


# --------------------------------------------------------------------------------------------- optical


def test_the_pictured_bar_has_the_length_and_angle_of_the_truth(galaxies):
    # Over a filled ellipse of (1 - m^2)^n the variance along an axis a is a^2 / (2 (n + 2)).
    per_variance = 2 * (optical.BAR_FERRERS_INDEX + 2)
    size, scale = 512, 0.131
    east, north = offsets(size, scale)
    for truth in of_class(galaxies, "barred_spiral"):
        angle, major, minor = shape_of(optical.bar_brightness(truth, east, north), east, north)
        assert 2 * np.sqrt(per_variance * major) == pytest.approx(truth["bar_length_arcsec"], rel=0.01)
        assert np.sqrt(minor / major) == pytest.approx(truth["bar_axis_ratio"], rel=0.03)
        assert angle_between(angle, truth["bar_position_angle_deg"]) < 0.5


def test_the_drawn_galaxy_has_its_bar_where_the_truth_says(galaxies):
    east, north = offsets()
    for truth in of_class(galaxies, "barred_spiral")[:5]:
        without = truth | {"bar_fraction": 0.0}
        # The same galaxy with and without a bar differ by the bar less a little of the smooth disc.
        fluxes = optical._component_fluxes(truth)
        disc_loss = fluxes["bar"][1] / (fluxes["bar"][1] + fluxes["body"][1])
        bar = picture(truth)[1] - (1 - disc_loss) * picture(without)[1]
        core = np.hypot(east, north) < 0.45 * truth["bar_length_arcsec"]
        angle, *_ = shape_of(np.maximum(bar, 0) * core, east, north)
        assert angle_between(angle, truth["bar_position_angle_deg"]) < 12


@pytest.mark.parametrize("label", ["cigar_smooth", "edge_on_without_bulge"])
def test_position_angles_are_east_of_north_with_east_at_column_0(galaxies, label):
    east, north = offsets()
    near = np.hypot(east, north) < 25
    for truth in of_class(galaxies, label)[:5]:
        angle, *_ = shape_of(picture(truth)[1] * near, east, north)
        assert angle_between(angle, truth["position_angle_deg"]) < 1


def test_north_east_is_up_and_to_column_0(galaxies):
    truth = of_class(galaxies, "edge_on_without_bulge")[0] | {"position_angle_deg": 45.0}
    band = picture(truth)[1]
    assert band[SIZE // 2 + 30, SIZE // 2 - 31] > 10 * band[SIZE // 2 + 30, SIZE // 2 + 30]


def test_the_light_adds_up_to_the_fluxes_of_the_truth(galaxies):
    for label in OPTICAL_MORPHOLOGY.classes:
        truth = of_class(galaxies, label)[0]
        wide = picture(truth, size=512).sum(axis=(1, 2))
        expected = [truth[f"flux_{band}_nanomaggy"] for band in "grz"]
        np.testing.assert_allclose(wide, expected, rtol=0.02)


def test_the_sky_noise_has_the_depth_of_decals():
    images = np.stack([optical.draw_optical(1, source_id) for source_id in IDS[:3]])
    corners = np.concatenate([images[..., :24, :24], images[..., -24:, -24:]]).transpose(1, 0, 2, 3)
    deviation = np.abs(corners - np.median(corners, axis=(2, 3), keepdims=True)).reshape(3, -1)
    np.testing.assert_allclose(1.4826 * np.median(deviation, axis=1), [0.004, 0.007, 0.018], rtol=0.12)


def test_a_coarser_pixel_sees_the_same_galaxy(galaxies):
    truth = of_class(galaxies, "merging")[0]
    coarse = picture(truth, size=64, scale=4 * SCALE)
    fine = picture(truth).reshape(3, 64, 4, 64, 4).sum(axis=(2, 4))
    np.testing.assert_allclose(coarse, fine, atol=0.003 * fine.max())


def test_old_stars_are_redder_than_arms(galaxies):
    for truth in of_class(galaxies, "barred_spiral"):
        assert truth["bulge_g_minus_r_mag"] > truth["body_g_minus_r_mag"] > truth["arm_g_minus_r_mag"]
