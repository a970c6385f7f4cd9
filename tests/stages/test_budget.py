"""What `galgaze fetch --dry-run` promises is what the server counts."""

import pytest
from tests.servers.soak import SoakServer, fate_of, key_of
from tests.stages.runs import HTTP, LEGACY, again, make_run, write_config, write_table
from tests.stages.test_fetch import write_moc
from tests.stages.test_fetch_cli import run_main
from tests.surveys.bodies import first_fits, galaxy

from galgaze.errors import ConfigError
from galgaze.files import remove_marker
from galgaze.stages.budget import describe, fetch_budget, remote_images
from galgaze.stages.fetch import choose_way, fetch
from galgaze.stages.fetch_progress import read_ledger
from galgaze.stages.plan import make_plan
from galgaze.surveys.cache import DownloadCache

ALL = [(150.0 + n / 10, 2.0) for n in range(200)]
BY_FATE = {fate: [place for place in ALL if fate_of(key_of(*place)) == fate] for fate in ("ok", "no_coverage")}
PLACES = BY_FATE["ok"][:18] + BY_FATE["no_coverage"][:2]


@pytest.fixture
def server():
    with SoakServer(failing=0.0) as server:
        yield server


def planned(folder, survey, places=PLACES, task="radio_fr", **changes):
    write_table(folder / "table.csv", [(f"s{n:02d}", *place) for n, place in enumerate(places)])
    run = make_run(folder, survey, task=task, **{"shard_size": 5} | changes)
    make_plan(run, "field")
    return run


def first(server, **changes):
    return {"kind": "first", "urls": [server.url], "size_px": 64, "http": HTTP, **changes}


def count(server):
    return len(server.log()["requests"])


def budget_of(run, *retry):
    return fetch_budget(again(run), "field", "sky", retry)


def test_before_halfway_and_after(tmp_path, server):
    run = planned(tmp_path, first(server))
    budget = budget_of(run)
    assert (budget.sources, budget.packed, budget.cached, budget.not_covered, budget.left) == (20, 0, 0, 0, 20)
    [cost] = budget.ways
    assert (cost.way, cost.requests, cost.files) == ("cutouts", 20, 20)
    assert budget.pack_files == 16
    assert count(server) == 0

    for shard in (0, 1):
        fetch(run, "field", "sky", shard)
    remove_marker(run.layout.fetch_marker("field", "sky", 1))
    assert count(server) == 10
    budget = budget_of(run)
    assert (budget.packed, budget.cached, budget.left, budget.ways[0].requests) == (5, 5, 10, 10)
    assert budget.pack_files == 12

    for shard in (1, 2, 3):
        fetch(run, "field", "sky", shard)
    assert count(server) == 20
    budget = budget_of(run)
    assert (budget.packed, budget.left, budget.ways[0].requests, budget.pack_files) == (20, 0, 0, 0)


def test_megabytes(tmp_path, server, monkeypatch):
    noise = {key_of(*place): first_fits(galaxy(300, n, 1)[0], *place) for n, place in enumerate(BY_FATE["ok"][:6])}
    monkeypatch.setattr("tests.servers.soak.body_at", noise.__getitem__)
    run = planned(tmp_path, first(server, size_px=300), BY_FATE["ok"][:6], shard_size=20)
    budget = budget_of(run)
    fetch(run, "field", "sky", 0)
    [line] = read_ledger(run.layout.fetch_ledger("field", "sky", 0))
    assert budget.ways[0].megabytes == pytest.approx(line["bytes"] / 1e6, rel=0.2)
    assert budget.pack_megabytes == pytest.approx(run.layout.fetched("field", "sky", 0).stat().st_size / 1e6, rel=0.2)
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert len(kept) == budget.ways[0].files
    assert sum(path.stat().st_size for path in kept) / 1e6 == pytest.approx(budget.ways[0].megabytes, rel=0.2)


def test_known_not_to_be_covered(tmp_path, server):
    run = planned(tmp_path, first(server), shard_size=20)
    fetch(run, "field", "sky", 0)
    assert budget_of(run).left == 0
    assert budget_of(run, "no_coverage").left == 2
    before = count(server)
    fetch(again(run), "field", "sky", 0, ("no_coverage",))
    assert count(server) - before == 2
    remove_marker(run.layout.fetch_marker("field", "sky", 0))
    budget = budget_of(run)
    assert (budget.cached, budget.not_covered, budget.left) == (18, 2, 0)
    assert budget.pack_megabytes == pytest.approx(18 * run.survey("sky").bytes_a_source() / 1e6)


def test_failed_sources_and_damaged_entries_are_to_be_asked_for(tmp_path, server, monkeypatch):
    monkeypatch.setattr("galgaze.stages.fetcher.THREADS_A_CONNECTION", 1)
    faults = iter(["503", "503"])
    monkeypatch.setattr("tests.servers.soak.fault_of", lambda *_: next(faults, "ok"))
    run = planned(tmp_path, first(server, http=HTTP | {"connections": 1}), BY_FATE["ok"][:5])
    assert fetch(run, "field", "sky", 0) == "field sky shard 0: 1 fetch_failed, 4 ok"
    assert (budget_of(run).cached, budget_of(run).left) == (4, 1)
    next(DownloadCache(tmp_path / "cache").entries()).write_bytes(b"decayed")
    assert (budget_of(run).cached, budget_of(run).left) == (3, 2)
    before = count(server)
    assert fetch(again(run), "field", "sky", 0).endswith("5 ok")
    assert count(server) - before == 2


def test_other_settings_make_everything_new(tmp_path, server):
    run = planned(tmp_path, first(server))
    for shard in range(4):
        fetch(run, "field", "sky", shard)
    changed = planned(tmp_path, first(server, size_px=70))
    assert (budget_of(changed).packed, budget_of(changed).left) == (0, 20)


def test_outside_of_the_footprint_costs_nothing(tmp_path, server):
    write_moc(tmp_path / "a.moc", PLACES[:4], order=11)
    run = planned(tmp_path, first(server, footprint=str(tmp_path / "a.moc")))
    budget = budget_of(run)
    for shard in range(4):
        fetch(run, "field", "sky", shard)
    assert budget.left == budget.ways[0].requests == count(server) < 10
    assert budget.not_covered == 20 - budget.left


@pytest.mark.parametrize(("places", "way"), [(ALL[:3], "cutouts"), (
    [(150.0 + n / 4000, 2.0 + m / 4000) for n in range(40) for m in range(40)], "bricks")])  # fmt: skip
def test_both_ways_and_which_is_taken(tmp_path, places, way):
    survey = LEGACY | {"mode": "auto", "url": "http://127.0.0.1:9", "bricks_url": "http://127.0.0.1:9"}
    survey |= {"size_px": 256, "http": HTTP | {"pause_s": 0.2}}
    run = planned(tmp_path, survey, places, task="optical_morphology", shard_size=5000)
    budget = budget_of(run)
    other = {"cutouts": "bricks", "bricks": "cutouts"}[way]
    assert [cost.way for cost in budget.ways] == [way, other]
    assert choose_way(run, "field", "sky") == way
    text = describe(budget)
    assert f"\n  {way} (taken): " in text
    assert f"\n  {other} (not taken): " in text


class TestText:
    def test_dry_run(self, tmp_path, server, monkeypatch, capsys):
        run = planned(tmp_path, first(server, http=HTTP | {"pause_s": 2}))
        words = "fetch", "--dry-run", "--config", write_config(run)
        code, said = run_main(monkeypatch, capsys, *words)
        assert code == 0
        lines = said.splitlines()
        assert lines[0] == "field from sky: 20 sources; 20 to ask for"
        assert lines[1] == "  cutouts: 20 requests, 0.4 MB, at least 40 s, 20 files in the cache"
        assert lines[2].startswith("  on disk: packs 0.4 MB in 16 files, with the cache 0.9 MB; ")
        assert lines[2].endswith(" GB free")
        assert count(server) == 0

    def test_afterwards(self, tmp_path, server, monkeypatch, capsys):
        run = planned(tmp_path, first(server), shard_size=20)
        fetch(run, "field", "sky", 0)
        capsys.readouterr()
        _, said = run_main(monkeypatch, capsys, "fetch", "--dry-run", "--config", write_config(run))
        assert said == "field from sky: 20 sources, 20 fetched; nothing to ask for\n"

    def test_a_disk_that_is_too_small(self, tmp_path, server, monkeypatch):
        monkeypatch.setattr("galgaze.stages.budget._free_megabytes", lambda _: 0.5)
        assert "THE DISK IS TOO SMALL" in describe(budget_of(planned(tmp_path, first(server))))

    def test_nothing_remote(self, tmp_path, monkeypatch, capsys):
        field = {"simulated": {"survey": "sky", "count": 2}, "tasks": ["radio_fr"]}
        run = make_run(tmp_path, {"kind": "simulated_first"}, field=field, task="radio_fr")
        code, said = run_main(monkeypatch, capsys, "fetch", "--dry-run", "--config", write_config(run))
        assert (code, said) == (0, "Nothing here comes from a public server.\n")

    def test_the_field_need_not_be_planned(self, tmp_path, server, monkeypatch, capsys):
        write_table(tmp_path / "table.csv", [("a", 150.0, 2.0)])
        run = make_run(tmp_path, first(server), task="radio_fr")
        words = "fetch", "--dry-run", "--config", write_config(run), "--field", "field", "--survey", "sky"
        assert "field from sky: 1 sources; 1 to ask for" in run_main(monkeypatch, capsys, *words)[1]

    @pytest.mark.parametrize("words", [{"field": "feild"}, {"survey": "sea"}, {"field": "field", "survey": "sea"}])
    def test_names_that_do_not_exist(self, tmp_path, server, words):
        run = planned(tmp_path, first(server))
        with pytest.raises(ConfigError, match=r"The (field|survey) '(feild|sea)' is not in the configuration"):
            remote_images(run, **words)
