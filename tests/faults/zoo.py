"""What the fault tests share: servers whose faults are those of a place, and a bench on which a user's run is done."""

import collections
import contextlib
import io
import os
import shutil
import sys
from unittest import mock

import numpy as np
import yaml

from galgaze import cli
from galgaze.images.store import ShardImages, read_shard
from galgaze.stages.context import Run
from galgaze.stages.fetch import fetch
from galgaze.stages.packs import read_contents, read_manifest
from galgaze.stages.plan import make_plan
from galgaze.stages.shard import shard
from galgaze.surveys.base import Cutout, Source
from galgaze.surveys.cache import DownloadCache, read_entry, read_head
from tests.servers.base import Reply
from tests.servers.first import FirstServer, parse_position
from tests.servers.legacy import LegacyServer
from tests.surveys.bodies import SCALE, first_fits, galaxy, legacy_fits

ALWAYS = 99  # times: more often than anything is asked for
PROBE = (200.0, 10.0)
FAR = (5.0, -60.0)  # neither survey has anything there
PLACES = {name: (150.0 + n, 2.0) for n, name in enumerate("abcd")}
HTTP = {"attempts": 2, "backoff_s": 0, "pause_s": 0, "timeout_s": 20, "give_up_after": 50, "cool_down_s": 0}


def spot(ra_deg: float, dec_deg: float) -> tuple[float, float]:
    """A place as it is told apart from others, however it was sent."""
    return round(ra_deg, 6) % 360, round(dec_deg, 6)


class ByPlace:
    """A survey's server that misbehaves where it is told to.

    `faults_at[place]` are faults as `SurveyServer.faults`, `answers[place]` replies, for the next requests of this
    place; None is a good answer, and the last reply stays.
    """

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self.faults_at: dict[tuple, list[str]] = collections.defaultdict(list)
        self.answers: dict[tuple, list[Reply | None]] = {}

    @contextlib.contextmanager
    def logged(self, method, path, params, user_agent):
        with super().logged(method, path, params, user_agent) as fault:
            waiting = self.faults_at[self.place(params)]
            yield waiting.pop(0) if waiting else fault

    def answer(self, path, params):
        waiting = self.answers.get(self.place(params), [None])
        instead = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        return super().answer(path, params) if instead is None else instead

    def asked(self) -> collections.Counter:
        """How often each place was asked for."""
        return collections.Counter(self.place(params) for _, _, params in self.requests)


class Legacy(ByPlace, LegacyServer):
    @staticmethod
    def place(params):
        return spot(float(params["ra"]), float(params["dec"]))


class First(ByPlace, FirstServer):
    @staticmethod
    def place(params):
        return spot(*parse_position(params["RA"], params.get("Dec", "")))


class Bench:
    """A user's folder: `config.yaml` with one survey, `sky`, and one field; the survey's server answers meanwhile.

    Parameters
    ----------
    folder : path
        Everything stands below it.
    kind : str
        ``legacy`` or ``first``.
    places : dict
        Sources: RA and Dec, degrees, by id.
    files : dict, optional
        What the server has, by file name; a good image of every place, and of the probe's, by default.
    size_px, shard_size : int
        Of cutouts; of shards.
    survey, preparation, http, server : dict, optional
        Other settings, and arguments of the server.
    """

    def __init__(
        self,
        folder,
        kind="legacy",
        places=PLACES,
        files=None,
        size_px=40,
        shard_size=32,
        survey=None,
        preparation=None,
        http=None,
        server=None,
    ):
        self.folder, self.kind, self.places = folder, kind, dict(places)
        self.sky = folder / "sky"
        self.sky.mkdir()
        if files is None:
            named = {**self.places, "probe": PROBE}
            files = {f"{n}.fits": self.image(n, place, size_px) for n, place in enumerate(named.values())}
        for name, body in files.items():
            (self.sky / name).write_bytes(body)
        self.server = (Legacy if kind == "legacy" else First)(self.sky, **(server or {}))
        self._survey = {"kind": kind, "size_px": size_px, "http": HTTP | (http or {})}
        if kind == "legacy":
            self._survey |= {"mode": "cutouts", "probe_ra_deg": PROBE[0], "probe_dec_deg": PROBE[1]}
            self.task, self._preparation = "optical_morphology", {"kind": "optical_composite", "size_px": 16}
            self._preparation["field_of_view_arcsec"] = size_px * SCALE
        else:
            self.task, self._preparation = "radio_fr", {"kind": "radio_clip", "size_px": size_px}
        self._survey |= survey or {}
        self._preparation |= preparation or {}
        self._shard_size = shard_size
        self._opened = []

    def __enter__(self):
        self.server.__enter__()
        where = {"url": self.server.url} if self.kind == "legacy" else {"urls": [self.server.url]}
        self._survey = where | self._survey
        self.write_table([(name, *place) for name, place in self.places.items()])
        self.configure()
        return self

    def __exit__(self, *how):
        for run in self._opened:
            run.survey("sky").close()
        self.server.__exit__(*how)

    # ---- what the user writes

    def image(self, seed: int, place, size_px: int = 40) -> bytes:
        """A good image of a place; others have others."""
        if self.kind == "legacy":
            return legacy_fits(galaxy(size_px, seed), *place)
        return first_fits(0.01 * galaxy(size_px, seed, 1)[0], *place)

    def write_table(self, rows, name="table.csv", head="source_id,ra,dec"):
        lines = [head, *(",".join(map(str, row)) for row in rows)]
        (self.folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")

    def configure(self, table="table.csv", results="results", http=None, top=None, **survey):
        """Write `config.yaml`; what is not given here is as the bench was made. `top` replaces whole sections."""
        config = {
            "results": str(self.folder / results),
            **{name: str(self.folder / name) for name in ("cache", "hosts")},
            "shard_size": self._shard_size,
            "surveys": self.surveys(sky=self._survey | survey | {"http": self._survey["http"] | (http or {})}),
            "fields": self.fields(field={"table": {"path": str(self.folder / table)}}),
            "tasks": {
                self.task: {
                    "survey": "sky",
                    "preparation": self._preparation,
                    "model": {"train": {"field": "training", "survey": "twin", "epochs": 1}},
                }
            },
        }
        text = yaml.safe_dump(config | (top or {}), allow_unicode=True)
        (self.folder / "config.yaml").write_text(text, encoding="utf-8")

    def surveys(self, **surveys) -> dict:
        """The section `surveys`, with these."""
        return {"twin": {"kind": "simulated_legacy" if self.kind == "legacy" else "simulated_first"}, **surveys}

    def fields(self, field: dict) -> dict:
        """The section `fields`, with the field of the sources."""
        return {"field": field | {"tasks": [self.task]}, "training": {"simulated": {"survey": "twin", "count": 4}}}

    # ---- what the user does

    def run(self) -> Run:
        """As a new process would see it."""
        run = Run.load(self.folder / "config.yaml")
        self._opened.append(run)
        return run

    def fetch(self, number=0, retry=()) -> str:
        """Plan and fetch; gives what the line says of the sources."""
        run = self.run()
        make_plan(run, "field")
        return fetch(run, "field", "sky", number, retry).split(": ", 1)[1]

    def shard(self, number=0) -> dict:
        """Fill a shard's images; gives its rows by id."""
        run = self.run()
        shard(run, "field", self.task, number)
        images = run.images("field", self.task)
        rows = read_shard(run.layout.store("field", images.store), number)
        return {name: Row(rows, n) for n, name in enumerate(rows.source_id.tolist()) if name}

    def cli(self, *words: str) -> tuple[int, str]:
        """The command line in this process: its exit code, and all that it says."""
        said = io.StringIO()
        arguments = ["galgaze", *words, "--config", str(self.folder / "config.yaml")]
        with (
            mock.patch.object(sys, "argv", arguments),
            mock.patch.dict(os.environ),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
        ):
            try:
                cli.main()
            except SystemExit as stop:
                return int(stop.code or 0), said.getvalue()
        return 0, said.getvalue()

    def cli_fetch(self) -> tuple[int, str]:
        """Plan, then ``galgaze fetch`` of the field."""
        make_plan(self.run(), "field")
        return self.cli("fetch", "--field", "field")

    def forget_hosts(self):
        """Remove what is known of the hosts, as the error's message says."""
        shutil.rmtree(self.folder / "hosts")

    # ---- what there is then

    def rows(self, number=0):
        """The manifest by id."""
        return read_manifest(self.run().layout.fetched("field", "sky", number)).set_index("source_id")

    def statuses(self, number=0) -> dict:
        return self.rows(number)["status"].to_dict()

    def bodies(self, number=0) -> dict:
        """Images in the pack by id, None where there is none."""
        pack = self.run().layout.fetched("field", "sky", number)
        return {row.source_id: row.content for row in read_contents(pack)}

    def decoded(self, name: str) -> Cutout:
        """A source's image in the first pack."""
        return self.run().survey("sky").decode(self.bodies()[name], Source(name, *self.places[name]))

    def left_nothing(self) -> bool:
        """Whether there is no pack and no marker, not even half of one."""
        folder = self.run().layout.fetched("field", "sky", 0).parent
        return [path for path in folder.glob("*") if not path.name.endswith(".ledger.jsonl")] == []

    def kept(self) -> dict:
        """Statuses in the cache by id; a body in it is an image, whatever happened before."""
        kept, names = {}, self._names()
        for path in DownloadCache(self.folder / "cache").entries():
            head, entry = read_head(path), read_entry(path)
            assert entry.body is None or entry.body.startswith(b"SIMPLE  =")
            kept[names[spot(head["request"]["ra_deg"], head["request"]["dec_deg"])]] = head["status"]
        return kept

    def asked(self) -> dict:
        """Requests so far by id; the probe is `probe`."""
        names = self._names()
        return {names[place]: count for place, count in self.server.asked().items()}

    def _names(self) -> dict:
        return {spot(*place): name for name, place in {"probe": PROBE, **self.places}.items()}

    def asks(self, work) -> dict:
        """The requests, by id, that some work makes."""
        before = collections.Counter(self.asked())
        work()
        return dict(collections.Counter(self.asked()) - before)

    def good(self, name: str) -> bytes:
        """What the server sends for a source when nothing is wrong."""
        (ra, dec), size = self.places[name], self._survey["size_px"]
        if self.kind == "legacy":
            scale = self._survey.get("pixel_scale_arcsec", SCALE)
            params = {"ra": ra, "dec": dec, "layer": "ls-dr9", "bands": "grz", "pixscale": scale, "size": size}
            return LegacyServer(self.sky).answer("/viewer/cutout.fits", params).body
        hours = round(ra / 15, 8) % 24
        params = {"RA": f"{hours:.8f} {dec:+.7f}", "ImageType": "FITS File", "ImageSize": size * 1.8 / 60}
        return FirstServer(self.sky, cut=self.server.cut).answer(FirstServer.path, params).body


class Row:
    """One row of a store's shard: attributes named as its arrays."""

    def __init__(self, rows: ShardImages, number: int):
        self._rows, self._number = rows, number

    def __getattr__(self, name):
        return getattr(self._rows, name)[self._number]

    @property
    def is_blank(self) -> bool:
        """No image of it can reach a network."""
        return not self.valid and not np.any(self.image)
