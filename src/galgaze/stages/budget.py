"""What fetching will cost, said before anything is asked: requests, bytes, hours, files."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from galgaze import status
from galgaze.stages.context import Run, read_sources, sources_of
from galgaze.stages.fetch import is_fetched, open_cache
from galgaze.surveys.base import Cost
from galgaze.words import duration, size

FILES_A_SHARD = 4  # the pack, its marker, the marker's twin, the ledger


@dataclass(frozen=True)
class Budget:
    """What a field's cutouts of one remote survey still cost.

    Attributes
    ----------
    field, survey : str
        Which.
    sources : int
        Requested by the field.
    packed : int
        In shards that have been fetched.
    cached : int
        Of the others: their image is in the cache.
    not_covered : int
        Of the others: outside of the footprint, or known to have no coverage.
    ways : tuple of Cost
        To get the rest; the first is the one that will be taken.
    pack_megabytes : float
        On disk for the packs of all shards that are still to be made, beside the cache.
    pack_files : int
        Likewise.
    free_megabytes : float
        On the disk of the cache or of the results, whichever has less.
    """

    field: str
    survey: str
    sources: int
    packed: int
    cached: int
    not_covered: int
    ways: tuple[Cost, ...]
    pack_megabytes: float
    pack_files: int
    free_megabytes: float

    @property
    def left(self) -> int:
        """Sources to ask for."""
        return self.sources - self.packed - self.cached - self.not_covered


def remote_images(run: Run, field: str | None = None, survey: str | None = None) -> list[tuple[str, str]]:
    """The (field, survey) pairs of the configuration that ask public servers; of this field, of this survey.

    Raises
    ------
    ConfigError
        If field or survey are not in the configuration.
    """
    if field:
        run.check_field(field)
    if survey:
        run.survey(survey)
    pairs = [(images.field, images.survey) for images in run.all_images()]
    if field and survey:  # `galgaze fetch` takes any
        pairs = [(field, survey)]
    pairs = [pair for pair in dict.fromkeys(pairs) if field in (None, pair[0]) and survey in (None, pair[1])]
    return [pair for pair in pairs if run.survey(pair[1]).remote]


def fetch_budget(run: Run, field: str, survey_name: str, retry: Iterable[str] = ()) -> Budget:
    """Count what is there, and what the rest costs; asks no survey for an image.

    The field must have its plan. Where a configured footprint stands at a web address it is fetched.

    Parameters
    ----------
    run, field, survey_name
        A pair of `remote_images`.
    retry : iterable of str
        As in `fetch`.
    """
    survey, cache = run.survey(survey_name), open_cache(run)
    frame = read_sources(run.layout, field)
    open_ = [
        part for shard, part in frame.groupby("shard") if not is_fetched(run, field, survey_name, shard, part, retry)
    ]
    shards_left, open_ = len(open_), pd.concat(open_ or [frame[:0]])
    frame, open_ = frame[frame["requested"]], open_[open_["requested"]]
    outside = survey.outside(*_positions(open_))
    identity = survey.identity()
    known = np.array([cache.known(identity, source) or "" for source in sources_of(open_)], dtype=str)
    if status.NO_COVERAGE in retry:
        known[known == status.NO_COVERAGE] = ""
    not_covered = outside | (known == status.NO_COVERAGE)
    asked = open_[~not_covered & (known == "")]
    # the way is the whole field's, see `choose_way`; its cost that of what is left
    left = {cost.way: cost for cost in survey.ways(*_positions(asked))}
    folders = [run.config.cache, run.config.results]
    return Budget(
        field=field,
        survey=survey_name,
        sources=len(frame),
        packed=len(frame) - len(open_),
        cached=int((~outside & (known == status.OK)).sum()),
        not_covered=int(not_covered.sum()),
        ways=tuple(left[cost.way] for cost in survey.ways(*_positions(frame))),
        pack_megabytes=int((~not_covered).sum()) * survey.bytes_a_source() / 1e6,
        pack_files=shards_left * FILES_A_SHARD,
        free_megabytes=min(_free_megabytes(Path(folder)) for folder in folders),
    )


def describe(budget: Budget) -> str:
    """A paragraph for the terminal."""
    there = {"fetched": budget.packed, "in the cache": budget.cached, "known to be not covered": budget.not_covered}
    counts = [f"{count} {what}" for what, count in there.items() if count]
    lines = [f"{budget.field} from {budget.survey}: " + ", ".join([f"{budget.sources} sources", *counts])]
    if budget.left:
        lines[0] += f"; {budget.left} to ask for"
        for place, cost in enumerate(budget.ways):
            name = cost.way if len(budget.ways) == 1 else f"{cost.way} ({'not ' if place else ''}taken)"
            lines.append(
                f"  {name}: {cost.requests} requests, {size(cost.megabytes)}, at least {duration(cost.seconds)}, "
                f"{cost.files} files in the cache"
            )
    else:
        lines[0] += "; nothing to ask for"
    needed = budget.pack_megabytes + (budget.ways[0].megabytes if budget.left else 0)
    if budget.pack_files:
        packs = f"packs {size(budget.pack_megabytes)} in {budget.pack_files} files"
        lines.append(f"  on disk: {packs}, with the cache {size(needed)}; {size(budget.free_megabytes)} free")
    if needed > budget.free_megabytes:
        lines.append("  THE DISK IS TOO SMALL for this: make room, or change `results` and `cache`.")
    return "\n".join(lines)


def _positions(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    return frame["ra_deg"].to_numpy(), frame["dec_deg"].to_numpy()


def _free_megabytes(folder: Path) -> float:
    """Of the disk where the folder is, or will be."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free / 1e6
