"""Files are whole or not there; markers tell what has been done, and whether it still stands."""

import json
import os
import stat

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from galgaze import files

QUICK = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=8,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


class TestAtomic:
    def test_it_takes_its_name_at_the_end(self, tmp_path):
        target = tmp_path / "new" / "a.txt"
        with files.atomic_path(target) as temporary:
            temporary.write_text("done")
            assert not target.exists()
            assert temporary.parent == target.parent
            assert temporary.name.startswith(".")
        assert target.read_text() == "done"
        assert names(target.parent) == ["a.txt"]
        assert stat.S_IMODE(target.stat().st_mode) == 0o644

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, OSError])
    def test_nothing_is_left_after_an_exception(self, tmp_path, error):
        target = tmp_path / "a.txt"
        target.write_text("old")

        def half():
            with files.atomic_path(target) as temporary:
                temporary.write_text("half")
                raise error

        with pytest.raises(error):
            half()
        assert target.read_text() == "old"
        assert names(tmp_path) == ["a.txt"]

    @pytest.mark.parametrize("call", ["fsync", "replace"])
    def test_nothing_is_left_when_the_disk_is_full(self, tmp_path, monkeypatch, call):
        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, call, full)
        with pytest.raises(OSError, match="No space left"):
            files.write_bytes(tmp_path / "a.txt", b"content")
        assert names(tmp_path) == []

    def test_a_reader_sees_old_or_new(self, tmp_path):
        target = tmp_path / "a"
        files.write_bytes(target, b"old")
        with open(target, "rb") as reader:
            files.write_bytes(target, b"new and longer")
            assert reader.read() == b"old"
        assert target.read_bytes() == b"new and longer"


def test_write_if_changed(tmp_path):
    path = tmp_path / "a"
    assert files.write_if_changed(path, b"one")
    os.utime(path, ns=(5, 5))
    assert not files.write_if_changed(path, b"one")
    assert path.stat().st_mtime_ns == 5
    assert files.write_if_changed(path, b"two")
    assert path.stat().st_mtime_ns != 5
    assert path.read_bytes() == b"two"


@QUICK
@given(value=JSON)
def test_json(tmp_path, value):
    files.write_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_text()) == value


@QUICK
@given(value=st.dictionaries(st.text(max_size=5), JSON, min_size=2, max_size=5))
def test_hashes_do_not_depend_on_the_order_of_keys(value):
    assert files.sha256_json(value) == files.sha256_json(dict(reversed(value.items())))
    assert files.sha256_json(value) != files.sha256_json([value])


def test_sha256_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert files.sha256_file(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


INPUTS = {"sources": "abc", "survey": {"kind": "legacy", "size": (3, 4)}}


class TestMarkers:
    @pytest.fixture
    def marker(self, tmp_path):
        outputs = [tmp_path / "out" / "a.bin", tmp_path / "other" / "b.bin"]
        for number, path in enumerate(outputs):
            files.write_bytes(path, bytes([number]) * 100)
        marker = tmp_path / "out" / "marker.json"
        files.write_marker(marker, INPUTS, outputs)
        return marker

    def test_it_holds(self, marker):
        assert files.marker_holds(marker, INPUTS)
        assert files.broken_outputs(marker) == []
        assert sorted(files.read_marker(marker)["outputs"]) == ["../other/b.bin", "a.bin"]

    def test_a_moved_folder_keeps_its_markers(self, marker, tmp_path):
        (tmp_path / "elsewhere").mkdir()
        for name in ("out", "other"):
            (tmp_path / name).rename(tmp_path / "elsewhere" / name)
        assert files.marker_holds(tmp_path / "elsewhere/out/marker.json", INPUTS)

    def test_other_inputs(self, marker):
        assert not files.marker_holds(marker, {**INPUTS, "sources": "abd"})
        assert not files.marker_holds(marker, {"sources": "abc"})
        assert not files.marker_holds(marker, {**INPUTS, "more": 1})

    @pytest.mark.parametrize("damage", ["gone", "changed", "folder"])
    def test_broken_outputs(self, marker, tmp_path, damage):
        victim = tmp_path / "other" / "b.bin"
        victim.unlink()
        if damage == "changed":
            victim.write_bytes(bytes([1]) * 99 + b"!")
        if damage == "folder":
            victim.mkdir()
        [broken] = files.broken_outputs(marker)
        assert os.path.samefile(os.path.dirname(broken), victim.parent)
        assert not files.marker_holds(marker, INPUTS)

    @pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"inputs": {}}', "7", "\x00"])
    def test_an_unreadable_marker_stands_for_nothing(self, marker, content):
        marker.write_text(content)
        assert files.read_marker(marker) is None
        assert not files.marker_holds(marker, INPUTS)
        assert files.broken_outputs(marker) == []

    def test_bytes_that_are_no_text(self, marker):
        marker.write_bytes(b"\xff\xfe\x00")
        assert files.read_marker(marker) is None

    def test_no_marker(self, tmp_path):
        assert files.read_marker(tmp_path / "none.json") is None
        assert not files.marker_holds(tmp_path / "none.json", {})

    @QUICK
    @given(inputs=st.dictionaries(st.text(max_size=5), JSON, max_size=4))
    def test_any_inputs(self, tmp_path, inputs):
        files.write_marker(tmp_path / "m.json", inputs, [])
        assert files.marker_holds(tmp_path / "m.json", inputs)
        assert not files.marker_holds(tmp_path / "m.json", {**inputs, "one more": 1})


def test_a_marker_that_was_taken_away_comes_back_but_not_a_removed_one(tmp_path):
    (tmp_path / "out").write_text("x")
    marker = tmp_path / "m.json"
    files.write_marker(marker, {"a": 1}, [tmp_path / "out"])
    marker.unlink()  # as Snakemake does before it starts a job
    files.restore_marker(marker)
    assert files.marker_holds(marker, {"a": 1})
    assert not files.marker_holds(marker, {"a": 2})
    files.remove_marker(marker)
    files.restore_marker(marker)
    assert not marker.exists()
