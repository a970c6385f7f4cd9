"""Real images, fetched over HTTP from servers that speak the surveys' protocols, to catalogue and report."""

import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.real_data import needs_data
from tests.workflow.real_surveys import prepare, servers
from tests.workflow.runs import snakemake

pytestmark = [pytest.mark.workflow, needs_data]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Results folder of a run with little training, and how many requests each server had."""
    import os
    from pathlib import Path

    data = Path(os.environ["GALGAZE_TEST_DATA"]).resolve()
    folder = tmp_path_factory.mktemp("real")
    with servers(data) as (first, legacy):
        config = prepare(data, folder, first.url, legacy.url, quick=True)
        snakemake(config)
        requests = len(first.requests), len(legacy.requests)
        assert "Nothing to be done" in snakemake(config)
        assert (len(first.requests), len(legacy.requests)) == requests
    return folder / "results", requests


def test_every_mirabest_source_has_a_row_and_one_no_coverage(finished):
    results, (requests, _) = finished
    catalogue = pd.read_parquet(results / "mirabest/radio_fr/catalogue.parquet")
    assert len(catalogue) == 1099
    assert catalogue["status"].value_counts().to_dict() == {"ok": 1098, "no_coverage": 1}
    (missing,) = catalogue[catalogue["status"] == "no_coverage"].itertuples()
    assert missing.source_id == "200_150.661+012.018_0.2633_0016.53"
    assert "not covered by the FIRST survey" in missing.status_reason
    assert pd.isna(missing.class_label)
    assert requests == 1099
    assert set(catalogue["training_role"].dropna()) == {"training", "validation"}
    assert catalogue.loc[catalogue["label"].isna(), "training_role"].isna().all()  # hybrids are not trained on


def test_manifest_tells_where_each_image_came_from(finished):
    results, _ = finished
    manifest = pq.read_table(results / "mirabest/cutouts/first/shard-00000.parquet").to_pandas()
    assert manifest["url"].str.contains("/cgi-bin/firstcutout").all()
    assert (manifest["bytes"] == manifest["content"].str.len()).all()
    assert manifest["fetched_utc"].str.match(r"\d{4}-\d\d-\d\dT").all()


def test_damaged_optical_files_are_rows_with_a_status(finished):
    results, _ = finished
    catalogue = pd.read_parquet(results / "decals/optical_morphology/catalogue.parquet").set_index("source_id")
    assert catalogue["status"].to_dict() == {
        "example_a": "ok",
        "example_b": "ok",
        "example_d": "ok",
        "temp_small": "ok",
        "example_bad_pix": "partial_coverage",
        "example_incomplete": "bad_image",
        "nothing_there": "no_coverage",
    }
    assert "truncated" in catalogue.loc["example_incomplete", "status_reason"]
    assert catalogue.loc["example_a", "prob_barred_spiral"] > 0


def test_reports_show_the_confusion_matrix_of_what_was_not_trained_on(finished):
    results, _ = finished
    page = (results / "mirabest/report.html").read_text()
    assert "onfusion" in page
    assert "no_coverage" in page
    assert (results / "decals/report.html").exists()


def test_reports_say_what_fetching_took(finished):
    results, (first, legacy) = finished
    assert f"<b>{first}</b> requests" in (results / "mirabest/report.html").read_text()
    page = (results / "decals/report.html").read_text()
    assert f"<b>{legacy}</b> requests" in page
    assert "as cutouts; expected for the whole field: <b>7</b> requests" in page
    assert "(as bricks: " in page
