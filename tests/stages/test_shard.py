"""From packs to the store: every source in its row, with its status, and nothing taken on trust."""

import numpy as np
import pytest
import zarr
from tests.stages.runs import make_run, write_table
from tests.surveys.bodies import DEC, RA, galaxy, legacy_fits

from galgaze.errors import ConfigError, TransientError
from galgaze.files import read_marker
from galgaze.images.store import read_shard
from galgaze.stages.fetch import fetch
from galgaze.stages.plan import make_plan
from galgaze.stages.shard import shard
from galgaze.stages.shards import check_store_shard

TASK = "optical_morphology"


def half_blank():
    pixels = galaxy()
    pixels[:, :25] = 0
    return pixels


IMAGES = {
    "good": legacy_fits(),
    "zeros": legacy_fits(np.zeros((3, 40, 40), np.float32)),
    "half": legacy_fits(half_blank()),
    "short": legacy_fits()[:9000],
    "infinite": legacy_fits(np.where(galaxy() > 0.5, np.float32(np.inf), galaxy())),
    "ünïcode ☉": legacy_fits(galaxy(seed=3)),
}
EXPECTED = {
    "good": "ok", "zeros": "no_coverage", "half": "partial_coverage", "short": "bad_image", "infinite": "bad_image",
    "ünïcode ☉": "ok", "missing": "no_coverage",
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    from galgaze.fields import safe_name

    (tmp_path / "images").mkdir()
    for name, body in IMAGES.items():
        (tmp_path / "images" / f"{safe_name(name)}.fits").write_bytes(body)
    write_table(tmp_path / "table.csv", [(name, RA, DEC) for name in EXPECTED])
    run = make_run(tmp_path, {"kind": "directory", "path": str(tmp_path / "images")}, shard_size=4)
    make_plan(run, "field")
    return run


def made(run, numbers=(0, 1)):
    lines = []
    for number in numbers:
        fetch(run, "field", "sky", number)
        lines.append(shard(run, "field", TASK, number))
    return lines


def store_of(run):
    return run.layout.store("field", run.images("field", TASK).store)


def test_every_source_has_its_row(run):
    assert [line.split(": ")[1] for line in made(run)] == ["1 of 4 images usable", "1 of 3 images usable"]
    group = zarr.open(store_of(run), mode="r")
    rows = dict(zip(group["source_id"][:7], group["status"][:7], strict=True))
    assert rows == EXPECTED
    assert list(group["source_id"][7:]) == [""]
    assert list(group["status"][7:]) == [""]
    assert group["valid"][:].tolist() == [rows.get(name) == "ok" for name in group["source_id"][:]]
    assert not group["image"][:][~group["valid"][:]].any()
    assert group["image"].shape == (8, 3, 16, 16)
    reasons = dict(zip(group["source_id"][:], group["status_reason"][:], strict=True))
    assert reasons["good"] == ""
    assert reasons["half"].endswith("of the field of view was observed, 80% are needed")
    assert reasons["short"].startswith("truncated")
    assert "infinite" in reasons["infinite"]
    assert reasons["missing"].startswith("no file missing")
    assert group["coverage"][0] == 1
    assert group["pixel_scale_arcsec"][0] == pytest.approx(40 * 0.262 / 16)
    assert np.isnan(group["pixel_scale_arcsec"][3])
    assert group["centre_px"][0].tolist() == [7.5, 7.5]
    assert dict(group.attrs)["preparation"]["size_px"] == 16


def test_an_image_does_not_depend_on_its_neighbours(run, tmp_path):
    made(run)
    alone = make_run(tmp_path, run.config.surveys["sky"].model_dump(), shard_size=1, results=str(tmp_path / "alone"))
    write_table(tmp_path / "table.csv", [("good", RA, DEC)])
    make_plan(alone, "field")
    made(alone, [0])
    assert np.array_equal(read_shard(store_of(alone), 0).image[0], read_shard(store_of(run), 0).image[0])


def test_a_rerun_does_nothing_and_damage_is_mended(run):
    made(run)
    assert made(run) == [f"field {run.images('field', TASK).store} shard {n}: already prepared" for n in (0, 1)]
    images = run.images("field", TASK)
    hashes = check_store_shard(run.layout, "field", images.store, 0)
    victim = store_of(run) / "image/c/0/0/0/0"
    victim.write_bytes(victim.read_bytes()[:-7])
    assert made(run)[0].endswith("1 of 4 images usable")
    assert check_store_shard(run.layout, "field", images.store, 0) == hashes, "the same bytes again"


def test_not_fetched(run):
    with pytest.raises(ConfigError, match="Shard 0 of field has not been fetched from sky: `galgaze fetch`"):
        shard(run, "field", TASK, 0)


def test_a_damaged_pack_is_not_believed(run):
    fetch(run, "field", "sky", 0)
    pack = run.layout.fetched("field", "sky", 0)
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 1
    pack.write_bytes(content)
    with pytest.raises(TransientError, match=r"shard-00000.parquet: missing or changed .*Its marker has been removed"):
        shard(run, "field", TASK, 0)
    assert read_marker(run.layout.fetch_marker("field", "sky", 0)) is None
    assert not store_of(run).exists()
    made(run, [0])


def test_packs_of_other_settings_or_sources_are_refused(run, tmp_path):
    fetch(run, "field", "sky", 0)
    settings = run.config.surveys["sky"].model_dump()
    other = make_run(tmp_path, {**settings, "pixel_scale_arcsec": 0.3}, shard_size=4)
    with pytest.raises(ConfigError, match="was fetched from sky for another list of sources, or with other settings"):
        shard(other, "field", TASK, 0)
    write_table(tmp_path / "table.csv", [("good", RA, DEC)])
    make_plan(run, "field")
    with pytest.raises(ConfigError, match="another list of sources"):
        shard(run, "field", TASK, 0)
    assert made(run, [0])[0].endswith("1 of 4 images usable")


def test_a_failed_job_leaves_no_marker(run, monkeypatch):
    made(run)
    images = run.images("field", TASK)
    run.layout.store_marker("field", images.store, 0).write_text("{}")
    monkeypatch.setattr("galgaze.stages.shard.write_shard", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        shard(run, "field", TASK, 0)
    assert not run.layout.store_marker("field", images.store, 0).exists()
    with pytest.raises(ConfigError, match="Shard 0 of field is not in the store"):
        check_store_shard(run.layout, "field", images.store, 0)


def test_new_sources_leave_old_shards_alone(run, tmp_path):
    made(run)
    old = {path: path.stat().st_mtime_ns for path in store_of(run).rglob("c/0/*") if path.is_file()}
    write_table(tmp_path / "table.csv", [(name, RA, DEC) for name in [*EXPECTED, "late"]])
    make_plan(run, "field")
    made(run, [0, 1, 2])
    assert {path: path.stat().st_mtime_ns for path in old} == old
    group = zarr.open(store_of(run), mode="r")
    assert group["image"].shape[0] == 12
    assert list(group["source_id"][7:]) == ["", "late", "", "", ""]
