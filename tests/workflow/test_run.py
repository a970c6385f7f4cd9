"""The promises of a run: every row accounted for, the same catalogue however it is made, nothing done twice."""

import copy
import json
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.workflow.runs import (
    ROOT,
    SMALL,
    assert_same_catalogues,
    catalogue,
    command,
    copy_results,
    galgaze,
    kill_when,
    run,
    snakemake,
    write_config,
)

pytestmark = pytest.mark.workflow


def times(folder: Path, pattern: str) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.glob(pattern)}


# ---- what comes out


def test_every_source_has_a_row_with_a_status_and_numbers(finished):
    galaxies = catalogue(finished, "galaxies", "optical_morphology")
    assert len(galaxies) == 30
    assert galaxies["source_id"].is_unique
    assert set(galaxies["status"]) == {"ok"}
    probability = galaxies.filter(like="prob_").to_numpy()
    assert probability.shape == (30, 10)
    np.testing.assert_allclose(probability.sum(axis=1), 1, atol=1e-5)
    assert galaxies["confidence"].between(0.1, 1).all()
    assert set(galaxies["calibration"]) == {"temperature"}
    assert galaxies["novelty"].between(0, 1).all()
    assert galaxies["_healpix_29"].is_monotonic_increasing
    assert galaxies.filter(like="attention_entropy").notna().all(axis=None)
    assert galaxies["bar_flag"].notna().all()  # threshold 0: every galaxy was measured
    good = galaxies[galaxies["bar_flag"] < 2]
    assert (good["bar_length_arcsec"] > 0).all()
    np.testing.assert_allclose(good["bar_length_arcsec"], good["bar_length_px"] * 1.048, rtol=0.01)
    assert galaxies.loc[galaxies["bar_flag"] == 2, "bar_length_px"].isna().all()


def test_rows_that_the_model_knows_say_so(finished):
    jets = catalogue(finished, "jets", "radio_fr")
    assert set(jets["training_role"]) == {"training", "validation"}
    assert catalogue(finished, "galaxies", "optical_morphology")["training_role"].isna().all()


def test_the_file_explains_itself(finished):
    path = finished / "results/galaxies/optical_morphology/catalogue.parquet"
    schema = pq.read_schema(path)
    length = schema.field("bar_length_arcsec").metadata
    assert length[b"unit"] == b"arcsec"
    assert b"Full length" in length[b"description"]
    provenance = json.loads(schema.metadata[b"galgaze"])
    assert provenance["rows_by_status"] == {"ok": 30}
    assert provenance["model_cards"][0]["classes"][5] == "barred_spiral"


def test_there_is_a_page_a_field_with_a_task(finished):
    assert (finished / "results/galaxies/report.html").stat().st_size > 10_000
    assert (finished / "results/jets/report.html").exists()
    assert not (finished / "results/training_galaxies/report.html").exists()


def test_a_field_without_sources_gives_an_empty_catalogue_with_all_columns(finished, tmp_path):
    copy_results(finished, tmp_path)
    config = copy.deepcopy(SMALL)
    nothing = {"simulated": {"survey": "optical", "count": 0, "prefix": "n"}, "tasks": ["optical_morphology"]}
    config["fields"]["nothing"] = nothing
    snakemake(write_config(tmp_path, config))
    path = tmp_path / "results/nothing/optical_morphology/catalogue.parquet"
    full = finished / "results/galaxies/optical_morphology/catalogue.parquet"
    assert pq.read_metadata(path).num_rows == 0
    assert pq.read_schema(path).equals(pq.read_schema(full))
    assert (tmp_path / "results/nothing/report.html").exists()
    assert "Nothing to be done" in snakemake(tmp_path / "config.yaml")


def test_two_workers_were_used(finished):
    log = (finished / "results/logs/predict/galaxies/optical_morphology.log").read_text()
    assert len(re.findall(r"of 4 shards", log)) == 4
    assert "2 workers" in log


# ---- the same whatever the way


def test_one_core_gives_the_same_catalogue_as_two(finished, tmp_path):
    snakemake(write_config(tmp_path, SMALL), cores=1)
    assert_same_catalogues(finished, tmp_path)


def test_batch_size_does_not_change_results(finished, tmp_path):
    copy_results(finished, tmp_path)
    config = copy.deepcopy(SMALL)
    config["tasks"]["optical_morphology"]["batch_size"] = 1
    path = write_config(tmp_path, config)
    for stage in ("predict", "measure"):
        for part in (tmp_path / "results/galaxies/optical_morphology").glob(f"{stage}*/*"):
            part.unlink()
        words = (stage, "--config", str(path), "--field", "galaxies", "--task", "optical_morphology")
        assert galgaze(tmp_path, *words).returncode == 0
    words = ("write", "--config", str(path), "--field", "galaxies", "--task", "optical_morphology")
    assert galgaze(tmp_path, *words).returncode == 0
    assert_same_catalogues(finished, tmp_path)


def test_a_second_run_has_nothing_to_do(finished):
    before = times(finished, "results/**/*.json")
    assert "Nothing to be done" in snakemake(finished / "config.yaml")
    assert times(finished, "results/**/*.json") == before


# ---- kill -9


def take_back(folder: Path) -> None:
    """Remove what comes after prediction: Snakemake makes nothing anew whose results still stand."""
    for name in ("optical_morphology/predict.json", "optical_morphology/catalogue.parquet", "report.html"):
        (folder / "results/galaxies" / name).unlink()


@pytest.mark.parametrize("stage", ["predict", "shard"])
def test_killed_in_the_middle_and_run_again(finished, tmp_path, stage):
    copy_results(finished, tmp_path)
    config = write_config(tmp_path, SMALL)
    results = tmp_path / "results"
    take_back(tmp_path)
    if stage == "predict":
        parts = "results/galaxies/optical_morphology/predict/*.parquet"
    else:
        parts = "results/galaxies/images/optical-*/.shard-*.json"  # the markers' twins, which Snakemake does not touch
        for marker in (results / "galaxies/images").glob("optical-*/shard-*.json"):
            marker.unlink()
        for store in (results / "galaxies/images").glob("*.zarr"):
            os.rename(store, tmp_path / "gone")
    for part in tmp_path.glob(parts):
        part.unlink()

    kill_when(config, lambda: len(times(tmp_path, parts)) > 0)

    finished_parts = times(tmp_path, parts)
    assert 0 < len(finished_parts) < 4
    locked = run(command(config))
    assert locked.returncode != 0
    assert "--unlock" in locked.stdout
    snakemake(config, "--unlock")
    snakemake(config)
    after = times(tmp_path, parts)
    assert len(after) == 4
    assert {name: after[name] for name in finished_parts} == finished_parts, "finished parts were done again"
    assert_same_catalogues(finished, tmp_path)
    assert not list(results.glob("**/*.partial")) or stage == "shard"


def test_a_damaged_store_is_noticed_and_made_again(finished, tmp_path):
    copy_results(finished, tmp_path)
    config = write_config(tmp_path, SMALL)
    (chunk,) = tmp_path.glob("results/galaxies/images/*.zarr/image/c/1/0/0/0")
    chunk.unlink()
    take_back(tmp_path)
    result = run(command(config))
    assert result.returncode != 0
    assert "missing or changed since it was written (shard 1 of galaxies)" in result.stdout
    assert "Traceback" not in result.stdout
    snakemake(config)
    assert chunk.exists()
    assert_same_catalogues(finished, tmp_path)


# ---- growth and size


def test_new_sources_touch_only_new_shards(finished, tmp_path):
    copy_results(finished, tmp_path)
    grown = copy.deepcopy(SMALL)
    grown["fields"]["galaxies"]["simulated"]["count"] = 33
    before = times(tmp_path, "results/galaxies/**/shard-*")
    snakemake(write_config(tmp_path, grown))
    after = times(tmp_path, "results/galaxies/**/shard-*")
    # positions are of shards 0 to 3; the three new sources stand in shard 4
    assert {name: time for name, time in after.items() if name in before} == before
    assert any("shard-00004" in name for name in after)
    old = catalogue(finished, "galaxies", "optical_morphology").set_index("source_id")
    new = catalogue(tmp_path, "galaxies", "optical_morphology").set_index("source_id")
    assert len(new) == 33
    pd.testing.assert_frame_equal(new.loc[old.index], old)


def test_jobs_grow_with_shards_not_with_sources(tmp_path):
    def fetch_jobs(count: int, shard_size: int) -> int:
        config = copy.deepcopy(SMALL)
        config["shard_size"] = shard_size
        config["fields"]["galaxies"]["simulated"]["count"] = count
        folder = tmp_path / f"{count}-{shard_size}"
        folder.mkdir()
        out = snakemake(write_config(folder, config), "--dry-run", "--quiet", "rules")
        out = out or snakemake(folder / "config.yaml", "--dry-run")
        return out.count("rule fetch:") or int(re.search(r"^fetch\s+(\d+)", out, re.MULTILINE)[1])

    few, many = fetch_jobs(40, 20), fetch_jobs(400, 200)
    assert few == many


def test_slurm_profile_asks_for_a_gpu_and_a_dask_cluster(tmp_path):
    config = write_config(tmp_path, SMALL)
    out = snakemake(
        config, "--dry-run", "--workflow-profile", str(ROOT / "workflow/profiles/slurm"), "--executor", "local"
    )
    assert re.search(r"rule train:(?:.*\n)+?    resources: .*gres=gpu:1", out)
    assert re.search(r"rule predict:(?:.*\n)+?    resources: .*dask=slurm", out)
