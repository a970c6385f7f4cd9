"""Vote tables of several projects become the same ten columns."""

import numpy as np
import pandas as pd
import pytest
from tests.real_data import needs_data

from galgaze.errors import ConfigError
from galgaze.images.datasets.votes import COLUMNS, read_votes, vote_fractions

# One galaxy under each project's names: smooth 0.2, featured 0.7, artifact 0.1; not edge-on 0.9; arms 0.6; bar 0.3.
DECALS = {
    "smooth-or-featured_smooth_fraction": 0.2,
    "smooth-or-featured_featured-or-disk_fraction": 0.7,
    "smooth-or-featured_artifact_fraction": 0.1,
    "disk-edge-on_yes_fraction": 0.1,
    "disk-edge-on_no_fraction": 0.9,
    "has-spiral-arms_yes_fraction": 0.6,
    "has-spiral-arms_no_fraction": 0.4,
    "bar_strong_fraction": 0.1,
    "bar_weak_fraction": 0.2,
    "bar_no_fraction": 0.7,
}
ZOO_2 = {
    "t01_smooth_or_features_a01_smooth_fraction": 0.2,
    "t01_smooth_or_features_a02_features_or_disk_fraction": 0.7,
    "t01_smooth_or_features_a03_star_or_artifact_fraction": 0.1,
    "t02_edgeon_a04_yes_fraction": 0.1,
    "t02_edgeon_a05_no_fraction": 0.9,
    "t04_spiral_a08_spiral_fraction": 0.6,
    "t04_spiral_a09_no_spiral_fraction": 0.4,
    "t03_bar_a06_bar_fraction": 0.3,
    "t03_bar_a07_no_bar_fraction": 0.7,
}
WITH_SURVEY = {name.replace("_", "-dr5_", 1): value for name, value in DECALS.items()}
OURS = dict(zip(COLUMNS, DECALS.values(), strict=True))
EXPECTED = list(DECALS.values())


def table(**changes) -> pd.DataFrame:
    """A row of Galaxy Zoo DECaLS, with columns (underscores for hyphens) changed."""
    row = DECALS | {next(name for name in DECALS if name.replace("-", "_") == key): v for key, v in changes.items()}
    return pd.DataFrame([row], index=["galaxy"])


@pytest.mark.parametrize("names", [DECALS, WITH_SURVEY, OURS])
def test_names(names):
    votes = vote_fractions(pd.DataFrame([names]), "here")
    assert tuple(votes.columns) == COLUMNS
    np.testing.assert_allclose(votes.iloc[0], EXPECTED)


def test_with_survey_is_what_is_meant():
    assert "bar-dr5_strong_fraction" in WITH_SURVEY
    assert "smooth-or-featured-dr5_featured-or-disk_fraction" in WITH_SURVEY


def test_galaxy_zoo_2_knows_no_strong_and_weak():
    votes = vote_fractions(pd.DataFrame([ZOO_2]), "here").iloc[0]
    np.testing.assert_allclose(votes.iloc[:7], EXPECTED[:7])
    assert np.isnan(votes["bar_strong"])
    assert np.isnan(votes["bar_weak"])
    assert votes["bar_no"] == pytest.approx(0.7)
    only_bar = pd.DataFrame([{"t03_bar_a06_bar_fraction": 0.3}])
    assert vote_fractions(only_bar, "here")["bar_no"].iloc[0] == pytest.approx(0.7)


def test_plain_fractions_stand_before_debiased_ones():
    debiased = {"bar_strong_debiased": 0.9, "bar_weak_debiased": 0.1, "bar_no_debiased": 0.0}
    assert vote_fractions(pd.DataFrame([debiased | DECALS]), "here")["bar_strong"].iloc[0] == pytest.approx(0.1)
    assert vote_fractions(pd.DataFrame([debiased]), "here")["bar_strong"].iloc[0] == pytest.approx(0.9)


def test_numbers_of_votes_are_not_taken_for_fractions():
    votes = vote_fractions(pd.DataFrame([DECALS | {"bar_strong": 4, "smooth-or-featured_smooth": 8}]), "here")
    np.testing.assert_allclose(votes.iloc[0], EXPECTED)
    with pytest.raises(ConfigError, match=r"row 1 \(0\): bar_strong is 4.*divided by all votes"):
        vote_fractions(pd.DataFrame([{"bar_strong": 4, "bar_weak": 1, "bar_no": 2}]), "here")


def test_a_row_takes_the_first_survey_that_has_votes_on_the_question():
    rows = {
        "bar-dr5_strong_fraction": [np.nan, 0.1],
        "bar-dr5_weak_fraction": [np.nan, 0.2],
        "bar-dr5_no_fraction": [np.nan, 0.7],
        "bar-dr12_yes_fraction": [0.4, 0.9],
        "bar-dr12_no_fraction": [0.6, 0.1],
    }
    votes = vote_fractions(pd.DataFrame(rows), "here")
    np.testing.assert_allclose(votes["bar_no"], [0.6, 0.7])
    np.testing.assert_allclose(votes["bar_strong"], [np.nan, 0.1])


@pytest.mark.parametrize("never", [0.0, np.nan])
def test_a_question_that_was_never_asked_is_not_known(never):
    votes = vote_fractions(table(bar_strong_fraction=never, bar_weak_fraction=never, bar_no_fraction=never), "here")
    assert votes[["bar_strong", "bar_weak", "bar_no"]].isna().all(axis=None)
    np.testing.assert_allclose(votes.iloc[0, :7], EXPECTED[:7])


def test_missing_columns_are_not_known_and_a_single_one_is_what_is_left():
    rows = pd.DataFrame({"disk-edge-on_no_fraction": [0.75], "smooth-or-featured_featured-or-disk_fraction": [0.6]})
    votes = vote_fractions(rows, "here").iloc[0]
    assert votes["disk_edge_on_yes"] == pytest.approx(0.25)
    assert votes["smooth_or_featured_featured"] == pytest.approx(0.6)
    assert votes.notna().sum() == 3


def test_rounded_fractions_are_scaled_to_sum_to_1():
    votes = vote_fractions(table(bar_strong_fraction=0.12), "here").iloc[0]
    assert votes[["bar_strong", "bar_weak", "bar_no"]].sum() == pytest.approx(1)
    assert votes["bar_strong"] == pytest.approx(0.12 / 1.02)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (table(bar_strong_fraction=0.3), r"here: row 1 \(galaxy\): the fractions bar_strong_fraction, .* sum to 1.2"),
        (table(bar_no_fraction=0.5), "sum to 0.8, not to 1"),
        (table(bar_strong_fraction=-0.1), r"bar_strong_fraction is -0.1; vote fractions are numbers from 0 to 1"),
        (table(bar_strong_fraction="many"), r"row 1 \(galaxy\): bar_strong_fraction is many"),
        (
            pd.DataFrame({"ra": [1.0], "hart_p_bar": [0.3]}),
            r"no column of votes.*t03_bar_a06_bar.*It has ra, hart_p_bar",
        ),
    ],
)
def test_what_cannot_be_used_is_named(rows, message):
    with pytest.raises(ConfigError, match=message):
        vote_fractions(rows, "here")


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
def test_files(tmp_path, ending):
    path = tmp_path / f"votes.{ending}"
    rows = pd.DataFrame([DECALS | {"source_id": name} for name in ("587722952230175035", "007", "NA")])
    rows.loc[2, "bar_no_fraction"] = np.nan
    rows["other"] = "x"
    rows.to_parquet(path) if ending == "parquet" else rows.to_csv(path, index=False)
    votes = read_votes(path)
    assert list(votes.index) == ["587722952230175035", "007", "NA"]
    assert votes.index.name == "source_id"
    np.testing.assert_allclose(votes.iloc[:2], [EXPECTED] * 2)
    assert votes.loc["NA", "bar_no"] == pytest.approx(0.7)  # what strong and weak leave


def test_other_id_columns(tmp_path):
    path = tmp_path / "votes.csv"
    pd.DataFrame([DECALS | {"iauname": "J1", "name": "g1"}]).to_csv(path, index=False)
    assert list(read_votes(path).index) == ["J1"]
    assert list(read_votes(path, "name").index) == ["g1"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("source_id,bar_no_fraction\na,0.5\na,0.6\n", "row 2 has the id 'a' a second time in source_id"),
        ("source_id,bar_no_fraction\n,0.5\n", "row 1 has no id in source_id"),
        ("source_id,bar_no_fraction\na,0.5\nb,1.6\n", r"row 2 \(b\): bar_no_fraction is 1.6"),
        ("galaxy,bar_no_fraction\na,0.5\n", "no column of the sources' ids .source_id or id_str"),
        ("source_id,ra\na,0.5\n", "no column of votes"),
        ("", "the table cannot be read"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, content, message):
    path = tmp_path / "votes.csv"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_votes(path)


def test_no_file_and_another_ending(tmp_path):
    with pytest.raises(ConfigError, match="there is no such file"):
        read_votes(tmp_path / "none.csv")
    path = tmp_path / "votes.txt"
    path.write_text("x")
    with pytest.raises(ConfigError, match="votes are read from"):
        read_votes(path)


@needs_data
def test_three_predicted_fractions_of_galaxy_zoo_decals(data_folder):
    path = data_folder / "decals/gz_decals/labels.csv"
    raw, votes = pd.read_csv(path, dtype={"id_str": str}).set_index("id_str"), read_votes(path)
    assert len(votes) == 200
    np.testing.assert_allclose(
        votes["smooth_or_featured_featured"], raw["smooth-or-featured_featured-or-disk_fraction"], atol=1e-6
    )
    np.testing.assert_allclose(votes["disk_edge_on_yes"], 1 - raw["disk-edge-on_no_fraction"], atol=1e-6)
    np.testing.assert_allclose(votes["has_spiral_arms_no"], raw["has-spiral-arms_no_fraction"], atol=1e-6)
    assert votes[["bar_strong", "bar_weak", "bar_no", "smooth_or_featured_smooth"]].isna().all(axis=None)
