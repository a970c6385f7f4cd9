"""The Zarr store: what is written is read, by anyone; what is missing is noticed."""

import subprocess
import sys

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from galgaze.errors import ConfigError, TransientError
from galgaze.files import write_marker
from galgaze.images.store import ARRAYS, ShardImages, ensure_store, read_shard, shard_files, write_shard
from galgaze.layout import Layout
from galgaze.stages.shards import check_store_shard

SHAPE = (3, 8, 8)
SIZE = 20  # a shard
ATTRIBUTES = {"field": "field", "preparation": {"size_px": 8}}


def images(seed=1, size=SIZE, used=None):
    rng = np.random.default_rng(seed)
    rows = ShardImages.empty(size, SHAPE)
    for row in range(size if used is None else used):
        rows.image[row] = rng.integers(0, 256, SHAPE)
        rows.valid[row] = True
        rows.status[row] = "ok"
        rows.coverage[row] = rng.random()
        rows.pixel_scale_arcsec[row] = rng.random()
        rows.centre_px[row] = rng.random(2)
        rows.jacobian_arcsec[row] = rng.random((2, 2))
        rows.image_sha256[row] = f"{rng.integers(2**60):064x}"
        rows.source_id[row] = f"source {seed} {row} ☉ñ"
    return rows


def assert_same(one, two):
    for name in ARRAYS:
        assert np.array_equal(getattr(one, name), getattr(two, name), equal_nan=name in FLOATS), name


FLOATS = ("coverage", "pixel_scale_arcsec", "centre_px", "jacobian_arcsec")


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "field" / "images" / "name.zarr"
    ensure_store(path, 3, SIZE, SHAPE, ATTRIBUTES)
    return path


def objects(path):
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file() and "/c/" in str(file))


def test_round_trip(store):
    write_shard(store, 1, images())
    assert_same(read_shard(store, 1), images())
    empty = read_shard(store, 0)
    assert not empty.valid.any()
    assert set(empty.source_id) == {""}
    partial = images(used=7)
    write_shard(store, 2, partial)
    assert_same(read_shard(store, 2), partial)


def test_reading_some_arrays(store):
    write_shard(store, 0, images())
    rows = read_shard(store, 0, ("image", "valid"))
    assert np.array_equal(rows.image, images().image)
    assert rows.source_id is None


def test_it_opens_with_plain_zarr(store):
    write_shard(store, 1, images())
    group = zarr.open(store, mode="r")
    assert sorted(group) == sorted(ARRAYS)
    assert dict(group.attrs) == ATTRIBUTES
    assert group["image"].shape == (3 * SIZE, *SHAPE)
    assert group["image"].dtype == np.uint8
    assert np.array_equal(group["image"][SIZE : 2 * SIZE], images().image)
    assert group["source_id"][SIZE] == "source 1 0 ☉ñ"


def test_one_object_a_shard_and_array(store):
    written = [write_shard(store, shard, images(shard)) for shard in range(3)]
    assert len(objects(store)) == 3 * len(ARRAYS)
    assert sorted(str(path.relative_to(store)) for paths in written for path in paths) == objects(store)
    assert shard_files(store, 2) == written[2]


def test_a_shard_of_zeros_has_its_objects_too(store):
    blank = ShardImages.empty(SIZE, SHAPE)
    assert all(path.is_file() for path in write_shard(store, 0, blank))


def test_growth_leaves_old_shards_alone(store):
    old = write_shard(store, 0, images())
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in old}
    ensure_store(store, 5, SIZE, SHAPE, ATTRIBUTES)
    write_shard(store, 4, images(4))
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in old} == before
    assert zarr.open(store, mode="r")["image"].shape[0] == 5 * SIZE
    assert_same(read_shard(store, 4), images(4))
    ensure_store(store, 2, SIZE, SHAPE, ATTRIBUTES)
    assert zarr.open(store, mode="r")["image"].shape[0] == 5 * SIZE, "it never shrinks"
    assert_same(read_shard(store, 0), images())


@pytest.mark.parametrize(("size", "shape"), [(SIZE, (1, 8, 8)), (SIZE, (3, 9, 9)), (SIZE + 1, SHAPE)])
def test_two_shapes_are_refused(store, size, shape):
    with pytest.raises(ConfigError, match=r"made with another shape or shard size. Remove it"):
        ensure_store(store, 3, size, shape, ATTRIBUTES)


@pytest.mark.parametrize("size", [1, 7, 10, 13, 40])
def test_any_shard_size(tmp_path, size):
    path = tmp_path / "a.zarr"
    ensure_store(path, 2, size, SHAPE, {})
    write_shard(path, 1, images(size=size))
    assert_same(read_shard(path, 1), images(size=size))
    assert len(objects(path)) == len(ARRAYS)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=50), min_size=SIZE, max_size=SIZE))
def test_any_text(store, texts):
    rows = images()
    rows.source_id[:] = texts
    rows.status_reason[:] = texts[::-1]
    write_shard(store, 0, rows)
    back = read_shard(store, 0)
    assert list(back.source_id) == texts
    assert list(back.status_reason) == texts[::-1]


class TestDamage:
    @pytest.fixture
    def layout(self, tmp_path, store):
        layout = Layout(tmp_path)
        assert layout.store("field", "name") == store
        write_marker(layout.store_marker("field", "name", 1), {}, write_shard(store, 1, images()))
        return layout

    def test_whole(self, layout):
        assert len(check_store_shard(layout, "field", "name", 1)) == len(ARRAYS)

    def test_never_made(self, layout):
        with pytest.raises(ConfigError, match=r"Shard 0 of field is not in the store name: run `galgaze shard`"):
            check_store_shard(layout, "field", "name", 0)

    @pytest.mark.parametrize("array", ["image", "valid", "source_id"])
    @pytest.mark.parametrize("damage", ["gone", "cut", "flipped"])
    def test_noticed_and_mended(self, layout, store, array, damage):
        [victim] = [path for path in shard_files(store, 1) if path.relative_to(store).parts[0] == array]
        content = bytearray(victim.read_bytes())
        if damage == "gone":
            victim.unlink()
        else:
            content[len(content) // 2] ^= 1
            victim.write_bytes(content[:-9] if damage == "cut" else content)
        with pytest.raises(TransientError, match=rf"{array}/c/1.*missing or changed .*shard 1 of field.*made anew"):
            check_store_shard(layout, "field", "name", 1)
        with pytest.raises(ConfigError, match="not in the store"):
            check_store_shard(layout, "field", "name", 1)
        write_shard(store, 1, images())  # must not stumble over what stands there
        assert_same(read_shard(store, 1), images())


WRITER = """
import sys
from pathlib import Path
import numpy as np
from galgaze.images.store import ShardImages, ensure_store, write_shard
path, number = Path(sys.argv[1]), int(sys.argv[2])
rows = ShardImages.empty(20, (3, 8, 8))
rows.image[:] = number
rows.source_id[:] = str(number)
print("ready", flush=True)
sys.stdin.readline()
ensure_store(path, 3, 20, (3, 8, 8), {})
write_shard(path, number, rows)
"""


@pytest.mark.parametrize("there", [0, 1])
def test_several_jobs_at_once(tmp_path, there):
    """A store is made, or grows, under several jobs that start in the same moment."""
    path = tmp_path / "a.zarr"
    if there:
        ensure_store(path, there, SIZE, SHAPE, {})
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    jobs = [subprocess.Popen([sys.executable, "-c", WRITER, path, str(number)], **pipes) for number in range(3)]
    for job in jobs:
        assert job.stdout.readline() == "ready\n"
    for job in jobs:
        job.stdin.write("go\n")
        job.stdin.flush()
    for job in jobs:
        _, errors = job.communicate(timeout=60)
        assert job.returncode == 0, errors
    for number in range(3):
        rows = read_shard(path, number)
        assert (set(rows.source_id), set(rows.image.ravel())) == ({str(number)}, {number})


def test_a_job_that_lost_the_race_for_the_group_goes_on(tmp_path, monkeypatch):
    path = tmp_path / "a.zarr"
    opened = zarr.open_group

    def late(store, mode, **settings):
        if mode == "a":
            ensured.append(opened(store, mode="a", **settings))
            raise zarr.errors.ContainsGroupError("A group exists")
        return opened(store, mode=mode)

    ensured = []
    monkeypatch.setattr(zarr, "open_group", late)
    ensure_store(path, 3, SIZE, SHAPE, ATTRIBUTES)
    assert len(ensured) == 1
    write_shard(path, 0, images())
    assert_same(read_shard(path, 0), images())


def test_a_job_that_lost_the_race_for_an_array_goes_on(tmp_path, monkeypatch):
    """Another job makes the arrays between our look and our own making."""
    path = tmp_path / "a.zarr"
    ensure_store(path, 3, SIZE, SHAPE, ATTRIBUTES)
    write_shard(path, 0, images())
    monkeypatch.setattr(zarr.Group, "__contains__", lambda *_: False)
    ensure_store(path, 3, SIZE, SHAPE, ATTRIBUTES)
    assert_same(read_shard(path, 0), images())
