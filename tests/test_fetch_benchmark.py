"""The soak and its server: what they say can be relied on, in small."""

import argparse
import io
import time
from collections import Counter

import httpx
import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from benchmarks import fetch

from galgaze.config import FirstSurvey
from galgaze.errors import BadImage
from galgaze.stages.packs import read_manifest
from galgaze.surveys.base import Source
from galgaze.surveys.registry import open_survey
from tests.servers.soak import FAULTS, SIDE_PX, SoakServer, body_at, fate_of, fault_of

MANY = fetch.positions(72_000)  # for what is rare
PLACES = MANY[:2000]


def place(fate, fault="ok"):
    """A position with this fate, whose first request meets this fault."""
    return next(key for key in MANY if fault_of(key, 0) == fault and fate_of(key) == fate)


class TestServer:
    @pytest.fixture
    def server(self):
        with SoakServer() as server:
            yield server

    @staticmethod
    def ask(server, key, **changes):
        form = {"RA": f"{key[0] / 15:.8f} {key[1]:+.7f}", "ImageType": "FITS File"}
        return httpx.post(server.url, data=form, **changes)

    def test_shares(self):
        fates = Counter(map(fate_of, PLACES))
        assert fates["no_coverage"] == pytest.approx(40, abs=20)
        assert fates["constant"] + fates["large"] == pytest.approx(20, abs=14)
        faults = Counter(fault_of(key, number) for key in PLACES for number in range(3))
        assert {"ok", "stall", "503:0", "429:soon, please"} < set(faults) <= {"ok", *FAULTS}
        assert 1 - faults["ok"] / 6000 == pytest.approx(0.1, abs=0.015)
        assert {fault_of(key, 0, failing=0.0) for key in PLACES} == {"ok"}

    def test_its_maps_are_what_they_should_be(self):
        survey = open_survey(FirstSurvey(kind="first", urls=["http://127.0.0.1:9"], size_px=SIDE_PX), hosts="/nowhere")
        key = place("ok")
        cutout = survey.decode(body_at(key), Source("a", *key))
        assert cutout.centre_px == pytest.approx([(SIDE_PX - 1) / 2] * 2, abs=1e-6)
        assert cutout.observed.all()
        assert body_at(key) != body_at(next(other for other in PLACES if fate_of(other) == "ok" and other != key))
        for fate, said in (("constant", "is constant"), ("large", "were asked for")):
            with pytest.raises(BadImage, match=said):
                survey.decode(body_at(place(fate)), Source("a", *place(fate)))

    def test_a_position_fails_as_foretold_and_then_not(self, server):
        key = place("ok", "truncate_no_length:8640")
        assert len(self.ask(server, key).content) == 8640
        assert fault_of(key, 1) == "ok"
        reply = self.ask(server, key)
        assert reply.content == body_at(key)
        assert fits.getdata(io.BytesIO(reply.content)).shape == (SIDE_PX, SIDE_PX)
        first, second = httpx.get(server.url.replace("cgi-bin/firstcutout", "soak/log")).json()["requests"]
        assert first[:3] == [*key, "truncate_no_length:8640"]
        assert (second[2], first[4]) == ("ok", None)
        assert second[3] <= second[4] <= time.monotonic()
        assert server.most_at_once == 1

    def test_who_hangs_up_is_not_in_the_works(self, server):
        for stalled in [key for key in PLACES if fault_of(key, 0) == "stall"][:2]:
            with pytest.raises(httpx.ReadTimeout):
                self.ask(server, stalled, timeout=0.2)
        assert self.ask(server, place("no_coverage")).text.count("not covered") == 2
        assert server.most_at_once == 1

    def test_closures_are_added_once(self, server):
        assert self.ask(server, place("ok", "429:date+1")).headers["Retry-After"].endswith("GMT")
        assert 0 < server.log()["closed_s"] <= 2
        assert self.ask(server, place("ok", "503:1")).headers["Retry-After"] == "1"
        assert server.log()["closed_s"] <= 2.1, "they overlap"


class TestChecks:
    def test_repeats(self):
        (good, other), bad = [key for key in PLACES if fate_of(key) == "ok"][:2], place("constant")
        requests = [
            [*good, "ok", 1.0, 1.1],
            [*other, "503", 1.2, None],
            [*bad, "ok", 1.3, 1.4],
            [*other, "ok", 3.0, 3.1],
            [*bad, "ok", 3.2, 3.3],
            [*good, "ok", 3.4, 3.5],
        ]
        assert fetch.repeats(requests, [2.0]) == (0, [1], 1)
        assert fetch.repeats(requests, []) == (1, [], 1)
        assert fetch.repeats([*requests, [*good, "ok", 4.0, 4.1]], [2.0]) == (1, [1], 1)

    def test_rate(self):
        http = {"pause_s": 0.1, "connections": 2}
        even = list(np.arange(0, 100, 0.1))
        assert not any(line.startswith("FAILED") for line in fetch.check_rate(even, http))
        dense = fetch.check_rate([*even, *np.linspace(50, 50.5, 5)], http)
        assert [line.startswith("FAILED") for line in dense] == [True, True, True]

    def test_rows(self, monkeypatch):
        """A wrong byte, a wrong status and a missing row are seen."""
        good, none = place("ok"), place("no_coverage")
        rows = [(f"{key[0]}_{key[1]}", "ok", None, "00") for key in (good, none)]
        found = pd.DataFrame(rows, columns=["source_id", "status", "status_reason", "sha256"])
        monkeypatch.setattr(fetch, "_found", lambda *_: found)
        line = fetch.check_rows(None, {"left": [good], "right": [none, PLACES[-1]]})
        assert line.startswith("FAILED rows: 2 for 3 sources (2 ok); 3 wrong")
        for said in ("has other bytes", "is ok (None), in truth no_coverage"):
            assert said in line


def test_soak(tmp_path, capsys):
    """Killed once, started again; every check holds, and the machine's speed is not one of them."""
    words = ["soak", "--sources", "60", "--rate", "100", "--kills", "1", "--shard-size", "15"]
    fetch.main([*words, "--folder", str(tmp_path / "soak")])
    said = capsys.readouterr().out
    assert "FAILED" not in said
    assert "life 1: killed" in said
    assert "rows: 60 for 60 sources" in said
    packs = sorted((tmp_path / "soak/results").glob("*/cutouts/first/*.parquet"))
    assert [len(read_manifest(pack)) for pack in packs] == [15] * 4


def test_speed(capsys):
    results = fetch.speed(argparse.Namespace(sources=4, rounds=2))
    assert {len(rounds) for rounds in results.values()} == {2}
    assert all(seconds > 0 and cpu > 0 for rounds in results.values() for seconds, cpu in rounds)
    assert "ours, 4 connections over astroquery, written to files: speed " in capsys.readouterr().out
