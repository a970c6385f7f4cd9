"""A source's place in the plan is for good, whatever becomes of its field."""

import os

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.stages.runs import LEGACY, make_run, write_table

from galgaze.errors import ConfigError
from galgaze.stages.context import read_sources
from galgaze.stages.plan import PLAN, make_plan

ROWS = [(f"s{n}", 10.0 + n, 1.5 * n) for n in range(5)]
SIMULATED = {"kind": "simulated_legacy", "size_px": 32}


@pytest.fixture
def run(tmp_path):
    return make_run(tmp_path, LEGACY)


@pytest.fixture
def plan(tmp_path, run):
    def plan(rows, **changes):
        write_table(tmp_path / "table.csv", rows)
        record = make_plan(make_run(tmp_path, LEGACY, **changes), "field")
        return record, read_sources(run.layout, "field")

    return plan


def places(frame):
    return {row.source_id: (row.shard, row.position) for row in frame.itertuples()}


def times(run):
    files = [*run.layout.plan("field").iterdir(), run.layout.plan_record("field")]
    return {path.name: path.stat().st_mtime_ns for path in files}


def test_first_plan(run, plan):
    record, frame = plan(ROWS)
    assert (record["shards"], record["sources"], record["shard_size"]) == (3, 5, 2)
    assert frame["source_id"].tolist() == [row[0] for row in ROWS]
    assert places(frame) == {"s0": (0, 0), "s1": (0, 1), "s2": (1, 0), "s3": (1, 1), "s4": (2, 0)}
    assert frame["requested"].all()
    assert read_sources(run.layout, "field", 1)["source_id"].tolist() == ["s2", "s3"]
    assert sorted(path.name for path in run.layout.plan("field").iterdir()) == [
        "shard-00000.parquet", "shard-00001.parquet", "shard-00002.parquet",
    ]  # fmt: skip


def test_new_sources_form_new_shards(run, plan):
    _, before = plan(ROWS)
    old = times(run)
    record, after = plan([("new", 99.0, 9.0), *ROWS[::-1], ("newer", 98.0, 9.0), ("newest", 97.0, 9.0)])
    assert record["shards"] == 5
    assert {name: places(after)[name] for name in places(before)} == places(before)
    assert [places(after)[name] for name in ("new", "newer", "newest")] == [(3, 0), (3, 1), (4, 0)]
    assert {name: times(run)[name] for name in old if "shard" in name} == {
        name: time for name, time in old.items() if "shard" in name
    }


def test_sources_that_left_stay_unrequested_and_may_return(run, plan):
    _, before = plan(ROWS)
    record, after = plan(ROWS[1:])
    assert (record["shards"], record["sources"]) == (3, 4)
    assert places(after) == places(before)
    assert after.set_index("source_id")["requested"].to_dict() == {
        "s0": False, "s1": True, "s2": True, "s3": True, "s4": True,
    }  # fmt: skip
    record, again = plan(ROWS)
    assert (record["sources"], places(again)) == (5, places(before))
    assert again["requested"].all()


def test_a_moved_source_is_refused(run, plan):
    plan(ROWS)
    old = times(run)
    with pytest.raises(ConfigError, match=r"fields.field: 1 sources have another position .*\(s3\). Give them new ids"):
        plan([row if row[0] != "s3" else ("s3", 13.0, 4.6) for row in ROWS])
    assert times(run) == old
    with pytest.raises(ConfigError, match=r"5 sources have another position"):
        plan([(name, ra + 1, dec) for name, ra, dec in ROWS])


def test_another_shard_size_is_refused(run, plan):
    plan(ROWS)
    old = times(run)
    with pytest.raises(
        ConfigError, match=r"made with shard_size 2, now 3 is configured. Shards never move: set it back"
    ):
        plan(ROWS, shard_size=3)
    assert times(run) == old


def test_an_unchanged_plan_is_not_rewritten(tmp_path, run, plan):
    plan(ROWS)
    old = times(run)
    make_plan(run, "field")
    assert times(run) == old
    os.utime(tmp_path / "table.csv", ns=(1, 1))  # touched, but the same
    make_plan(run, "field")
    assert {name: time for name, time in times(run).items() if name != "plan.json"} == {
        name: time for name, time in old.items() if name != "plan.json"
    }


def test_the_table_is_not_read_again_without_need(tmp_path, run, plan, monkeypatch):
    plan(ROWS)
    monkeypatch.setattr("galgaze.stages.plan.read_table", None)
    assert make_plan(run, "field")["sources"] == 5


def test_labels_corrected_later(run, plan):
    plan([(*row, "") for row in ROWS])
    old = times(run)
    _, after = plan([(*row, label) for row, label in zip(ROWS, ["", "", "merging", "disturbed", ""], strict=True)])
    assert after["label"].astype(object).where(after["label"].notna(), None).tolist() == [
        None, None, "merging", "disturbed", None,
    ]  # fmt: skip
    changed = {name for name, time in times(run).items() if old[name] != time}
    assert changed == {"shard-00001.parquet", "plan.json"}
    _, after = plan([(*row, "") for row in ROWS])
    assert after["label"].isna().all()


def test_some_shards_without_labels(run, plan):
    """A shard's file has the same columns, whatever is absent in it."""
    labels = ["", "", "merging", "", ""]
    _, frame = plan([(*row, label) for row, label in zip(ROWS, labels, strict=True)])
    assert frame["label"].dropna().tolist() == ["merging"]
    kinds = {str(pd.read_parquet(path).dtypes.to_dict()) for path in run.layout.plan("field").iterdir()}
    assert len(kinds) == 1


def test_unusual_ids_survive(plan):
    rows = [("007", 1.0, 1.0), ("9223372036854775807", 2.0, 2.0), ("J1204+4 ü", 3.0, 3.0), ("../../x", 4.0, 4.0)]
    _, frame = plan(rows)
    assert frame["source_id"].tolist() == [row[0] for row in rows]


def test_unknown_fields_and_shards(run, plan):
    with pytest.raises(ConfigError, match=r"The field 'other' is not in the configuration \(field\)"):
        make_plan(run, "other")
    with pytest.raises(ConfigError, match="there is no plan of the field 'field'"):
        read_sources(run.layout, "field")
    plan(ROWS)
    with pytest.raises(ConfigError, match="no such shard"):
        read_sources(run.layout, "field", 7)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(versions=st.lists(st.lists(st.integers(0, 12), min_size=1, unique=True), min_size=2, max_size=4))
def test_any_history_keeps_every_place(tmp_path_factory, versions):
    folder = tmp_path_factory.mktemp("history")
    run = make_run(folder, LEGACY, shard_size=3)
    known = {}
    for size, numbers in enumerate(versions):
        write_table(folder / "table.csv", [(f"s{n}", 10.0 + n, 1.0) for n in numbers])
        os.utime(folder / "table.csv", ns=(size, size))
        record = make_plan(run, "field")
        frame = read_sources(run.layout, "field")
        assert known.items() <= places(frame).items()
        known = places(frame)
        assert len(set(known.values())) == len(known) == len(frame)
        assert set(frame["source_id"][frame["requested"]]) == {f"s{n}" for n in numbers}
        assert record["sources"] == len(numbers)
        assert record["shards"] == frame["shard"].max() + 1
        assert frame["position"].max() < 3


class TestSimulated:
    @pytest.fixture
    def run(self, tmp_path):
        field = {"simulated": {"survey": "sky", "count": 5, "prefix": "g"}, "tasks": ["optical_morphology"]}
        return make_run(tmp_path, SIMULATED, field=field)

    def test_the_truth_stands_apart(self, run):
        make_plan(run, "field")
        frame, truth = read_sources(run.layout, "field"), pd.read_parquet(run.layout.truth("field"))
        assert frame["source_id"].tolist() == truth["source_id"].tolist() == [f"g-{n:07d}" for n in range(5)]
        assert frame["label"].tolist() == truth["class_label"].tolist()
        assert set(frame.columns) == {
            "source_id", "ra_deg", "dec_deg", "redshift", "las_arcsec", "petrosian_radius_arcsec", "label", "shard",
            "position", "requested",
        }  # fmt: skip
        assert frame["ra_deg"].between(120, 240).all()
        assert frame["dec_deg"].between(0, 30).all()

    def test_growing_moves_nothing(self, tmp_path, run):
        make_plan(run, "field")
        before = read_sources(run.layout, "field")
        field = {"simulated": {"survey": "sky", "count": 8, "prefix": "g"}, "tasks": ["optical_morphology"]}
        make_plan(make_run(tmp_path, SIMULATED, field=field), "field")
        after = read_sources(run.layout, "field")
        pd.testing.assert_frame_equal(after.head(5), before)
        assert after["shard"].tolist() == [0, 0, 1, 1, 2, 3, 3, 4]

    def test_a_field_of_no_sources_has_a_plan_with_all_columns_and_may_grow(self, tmp_path):
        field = {"simulated": {"survey": "sky", "count": 0, "prefix": "g"}, "tasks": ["optical_morphology"]}
        run = make_run(tmp_path, SIMULATED, field=field)
        record = make_plan(run, "field")
        assert (record["shards"], record["sources"]) == (0, 0)
        plan = read_sources(run.layout, "field")
        assert plan.empty
        assert list(plan.columns) == PLAN.names
        truth = pd.read_parquet(run.layout.truth("field"))
        assert truth.empty
        assert {"source_id", "class_label", "bar_length_px"} <= set(truth)
        field["simulated"]["count"] = 3
        record = make_plan(make_run(tmp_path, SIMULATED, field=field), "field")
        assert (record["shards"], record["sources"]) == (2, 3)
        assert read_sources(run.layout, "field")["shard"].tolist() == [0, 0, 1]
