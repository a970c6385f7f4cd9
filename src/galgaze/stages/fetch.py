"""Stage 1: the cutouts of one shard, as served, in one file with a manifest row a source.

What is downloaded lands in the cache first, which Snakemake does not own: a job that is killed, or gives up,
costs no second download.
"""

from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from galgaze import status
from galgaze.errors import ConfigError
from galgaze.files import broken_outputs, read_marker, restore_marker, write_marker
from galgaze.stages.context import Run, read_sources, sources_identity, sources_of
from galgaze.stages.fetch_progress import Progress
from galgaze.stages.fetcher import Fetcher
from galgaze.stages.packs import content_identity, read_manifest, write_pack
from galgaze.surveys.base import Survey
from galgaze.surveys.cache import DownloadCache

NOWHERE = np.empty(0), np.empty(0)  # positions


def fetch(run: Run, field: str, survey_name: str, shard: int, retry: tuple[str, ...] = ()) -> str:
    """Fetch one shard; gives a line that says what was done.

    Parameters
    ----------
    run : Run
        The checked configuration.
    field, survey_name, shard
        What to fetch, and from where.
    retry : tuple of str
        Statuses (`no_coverage`, `bad_image`) of which the sources are to be asked for again.

    Raises
    ------
    TransientError
        If the service is in trouble; what was got is kept.
    """
    surveys = _surveys(run, survey_name)
    frame = read_sources(run.layout, field, shard)
    marker, target = run.layout.fetch_marker(field, survey_name, shard), run.layout.fetched(field, survey_name, shard)
    what = f"{field} {survey_name} shard {shard}"
    restore_marker(marker)
    if not broken_outputs(marker) and is_fetched(run, field, survey_name, shard, frame, retry):
        return f"{what}: already fetched"
    way = choose_way(run, field, survey_name)
    sources = sources_of(frame[frame["requested"]])
    with (
        Progress(what, len(sources), surveys, way, run.layout.fetch_ledger(field, survey_name, shard)) as progress,
        Fetcher(surveys, open_cache(run), ask_again=status.NO_COVERAGE in retry) as fetcher,
    ):
        write_pack(target, fetcher.rows(sources), progress.note)
    inputs = _inputs(run, survey_name, frame) | {"content": content_identity(target)}
    write_marker(marker, inputs, [target])
    return f"{what}: {progress.by_status()}"


def fetch_field(
    run: Run, field: str | None, survey_name: str | None, shard: int | None, retry: tuple[str, ...] = ()
) -> Iterator[str]:
    """Fetch one shard, or all of a field in turn; yields a line a shard. See `fetch`.

    Raises
    ------
    ConfigError
        If the field or the survey is not named and cannot be told, or the field has no plan.
    """
    if field is None:
        raise ConfigError(f"Name a field with --field ({', '.join(run.config.fields)}), or use --dry-run for all.")
    run.check_field(field)
    used = list(dict.fromkeys(images.survey for images in run.all_images() if images.field == field))
    if survey_name is None and len(used) != 1:
        raise ConfigError(f"Name a survey with --survey: {field} has its images from {', '.join(used) or 'none'}.")
    shards = read_sources(run.layout, field)["shard"].unique().tolist() if shard is None else [shard]
    for number in shards:
        yield fetch(run, field, survey_name or used[0], number, retry)


def _surveys(run: Run, survey_name: str) -> dict[str, Survey]:
    """The survey, and the one that stands in for it, by name."""
    surveys = {survey_name: run.survey(survey_name)}
    fallback = run.fallback(survey_name)
    return surveys | {fallback: run.survey(fallback)} if fallback else surveys


def open_cache(run: Run) -> DownloadCache:
    """The cache of the configuration."""
    return DownloadCache(run.config.cache, run.config.no_coverage_days)


def choose_way(run: Run, field: str, survey_name: str) -> str | None:
    """Have a remote survey take the way that costs least for the whole field; gives its name.

    The choice is the field's, not the shard's: the more sources share a brick the less it costs.
    """
    survey = run.survey(survey_name)
    if not survey.remote:
        return None
    ways = survey.ways(*NOWHERE)
    if len(ways) > 1:
        frame = read_sources(run.layout, field)
        frame = frame[frame["requested"]]
        ways = survey.ways(frame["ra_deg"].to_numpy(), frame["dec_deg"].to_numpy())
    survey.choose(ways[0].way)
    return ways[0].way


def is_fetched(
    run: Run, field: str, survey_name: str, shard: int, frame: pd.DataFrame, retry: Iterable[str] = ()
) -> bool:
    """Whether a shard's pack was made from its sources `frame`, and has none of which another try may help.

    That the pack is still whole is for its marker to say.
    """
    kept = read_marker(run.layout.fetch_marker(field, survey_name, shard))
    if kept is None or kept["inputs"] | _inputs(run, survey_name, frame) != kept["inputs"]:
        return False
    try:
        manifest = read_manifest(run.layout.fetched(field, survey_name, shard))
    except (OSError, ValueError):
        return False
    return not manifest["status"].isin({status.FETCH_FAILED, *retry}).any()


def _inputs(run: Run, survey_name: str, frame: pd.DataFrame) -> dict:
    """What decides a pack's content."""
    return {"sources": sources_identity(frame), "survey": run.survey_identity(survey_name)}
