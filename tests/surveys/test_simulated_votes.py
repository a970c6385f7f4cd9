"""Votes on simulated galaxies: what volunteers who agreed on the class would have answered."""

import numpy as np
import pandas as pd
import pytest

from galgaze.surveys.simulated.optical import optical_truth
from galgaze.surveys.simulated.radio import radio_truth
from galgaze.surveys.simulated.votes import simulated_votes
from galgaze.tasks import OPTICAL_MORPHOLOGY, QUESTIONS

NAMES = [f"{question.name}_{answer}" for question in QUESTIONS for answer in question.answers]
SMOOTH = ("round_smooth", "in_between_smooth", "cigar_smooth")
EDGE_ON = ("edge_on_without_bulge", "edge_on_with_bulge")
UNBARRED = ("unbarred_tight_spiral", "unbarred_loose_spiral")


@pytest.fixture(scope="module")
def truth():
    classes = OPTICAL_MORPHOLOGY.classes
    return pd.DataFrame([optical_truth(1, f"{name} {i}", {name: 1}, 0.1) for name in classes for i in range(60)])


@pytest.fixture(scope="module")
def votes(truth):
    return pd.DataFrame(simulated_votes(truth), columns=NAMES)


def clean(truth):
    return truth["artefact"] == "none"


def test_fractions_of_each_question_sum_to_1(votes):
    assert ((votes >= 0) & (votes <= 1)).all(axis=None)
    for question in QUESTIONS:
        part = votes[[f"{question.name}_{answer}" for answer in question.answers]]
        np.testing.assert_allclose(part.sum(axis=1), 1, atol=1e-6)


def test_each_class_is_what_its_volunteers_agreed_on(truth, votes):
    seen = votes[clean(truth)]
    label = truth.loc[clean(truth), "class_label"]
    assert (seen["smooth_or_featured_featured"][label.isin(SMOOTH)] < 0.2).all()
    assert (seen["smooth_or_featured_featured"][~label.isin(SMOOTH)] > 0.5).all()
    assert (seen["disk_edge_on_yes"][label.isin(EDGE_ON)] > 0.8).all()
    assert (seen["disk_edge_on_yes"][label.isin(("barred_spiral", *UNBARRED))] < 0.1).all()
    assert (seen["bar_no"][label.isin(UNBARRED) & (truth["bar_strength"] == "none")] > 0.8).all()
    assert (seen["has_spiral_arms_yes"][label.isin(UNBARRED)] > 0.5).mean() > 0.95
    assert (seen["has_spiral_arms_yes"][label.isin(SMOOTH + EDGE_ON)] < 0.2).all()


def test_bars(truth, votes):
    barred = truth["class_label"] == "barred_spiral"
    strong, weak = (votes[barred & (truth["bar_strength"] == strength)] for strength in ("strong", "weak"))
    assert (strong["bar_strong"] > 0.6).all()
    assert (weak["bar_weak"] > weak["bar_strong"]).all()
    assert ((1 - weak["bar_no"]) > 0.5).mean() > 0.85
    overlooked = truth["class_label"].isin(UNBARRED) & (truth["bar_strength"] == "weak")
    assert overlooked.sum() > 3
    assert (votes["bar_no"][overlooked] > 0.5).mean() > 0.8
    assert votes["bar_no"][overlooked].mean() < votes["bar_no"][truth["bar_strength"] == "none"].mean()


@pytest.mark.parametrize(
    ("change", "answer", "sign"),
    [
        ({"bar_length_arcsec": 1.5}, "bar_no", -1),
        ({"bar_fraction": 1.3}, "bar_no", -1),
        ({"bar_axis_ratio": 1.3}, "bar_no", 1),
        ({"psf_fwhm_r_arcsec": 1.5}, "bar_no", 1),
        ({"inclination_deg": 1.15}, "bar_no", 1),
        ({"bar_fraction": 1.3}, "bar_strong", 1),
        ({"arm_fraction": 1.5}, "has_spiral_arms_yes", 1),
        ({"inclination_deg": 1.15}, "has_spiral_arms_yes", -1),
        ({"inclination_deg": 1.15}, "disk_edge_on_yes", 1),
        ({"psf_fwhm_r_arcsec": 3.0}, "smooth_or_featured_featured", -1),
    ],
)
def test_votes_follow_what_there_is_to_see(truth, change, answer, sign):
    barred = truth[truth["class_label"] == "barred_spiral"]
    ((name, factor),) = change.items()
    before, after = (
        pd.DataFrame(simulated_votes(rows), columns=NAMES)[answer]
        for rows in (barred, barred.assign(**{name: barred[name].astype(float) * factor}))
    )
    assert (sign * (after - before) > -1e-6).all()
    assert (sign * (after - before)).max() > 0.005


def test_small_changes_of_the_truth_change_votes_little(truth):
    galaxy = truth[(truth["class_label"] == "barred_spiral") & (truth["bar_strength"] == "strong")].iloc[:1]
    for name in ("bar_length_arcsec", "bar_fraction", "bar_axis_ratio", "inclination_deg", "arm_fraction"):
        start = float(galaxy[name].iloc[0])
        rows = pd.concat([galaxy.assign(**{name: value}) for value in np.linspace(0.8, 1.2, 201) * start])
        assert np.abs(np.diff(simulated_votes(rows), axis=0)).max() < 0.01


def test_faulty_images_are_called_artifacts(truth, votes):
    artifact = votes["smooth_or_featured_artifact"].groupby(truth["artefact"]).mean()
    assert artifact["none"] < 0.02
    assert (artifact.drop("none") > 0.05).all()
    assert artifact["missing_band"] > artifact["satellite_trail"]


def test_one_mapping_gives_the_row_of_the_table(truth, votes):
    one = optical_truth(1, "barred_spiral 7", {"barred_spiral": 1}, 0.1)
    row = 60 * OPTICAL_MORPHOLOGY.classes.index("barred_spiral") + 7
    answers = simulated_votes(one)
    assert answers.shape == (1, 10)
    assert answers.dtype == np.float32
    np.testing.assert_allclose(answers[0], votes.iloc[row])


def test_columns_of_nothing_drawn_are_read(tmp_path):
    # a field of ellipticals alone: in the file columns of bars and arms are all null
    rows = pd.DataFrame([optical_truth(1, f"r{i}", {"round_smooth": 1}) for i in range(4)])
    rows.to_parquet(tmp_path / "truth.parquet")
    again = simulated_votes(pd.read_parquet(tmp_path / "truth.parquet"))
    np.testing.assert_allclose(again, simulated_votes(rows))
    assert (again[:, NAMES.index("bar_no")] > 0.8).all()


def test_other_truth_is_refused():
    with pytest.raises(ValueError, match="no truth of optical galaxies: it lacks inclination_deg, axis_ratio"):
        simulated_votes(radio_truth(1, "r"))
