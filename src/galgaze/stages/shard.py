"""Stage 2: decode, prepare, and write one shard into the field's Zarr store."""

from galgaze import status
from galgaze.errors import BadImage, ConfigError, NoCoverage, TransientError
from galgaze.files import broken_outputs, marker_holds, read_marker, remove_marker, restore_marker, write_marker
from galgaze.images.preparation import channels, preparation_identity, prepare
from galgaze.images.store import ShardImages, ensure_store, write_shard
from galgaze.stages.context import Run, read_sources, sources_identity, sources_of
from galgaze.stages.packs import Fetched, read_contents
from galgaze.stages.plan import read_record
from galgaze.surveys.base import Source, Survey, pixel_side


def shard(run: Run, field: str, task: str, shard_number: int, survey_name: str | None = None) -> str:
    """Prepare one shard's images for a task; gives a line that says what was done."""
    images = run.images(field, task, survey_name)
    settings = run.task(task).preparation
    frame = read_sources(run.layout, field, shard_number)
    inputs = {
        "sources": sources_identity(frame),
        "cutouts": _check_fetched(run, field, images.survey, shard_number, sources_identity(frame)),
        "preparation": preparation_identity(settings),
    }
    marker = run.layout.store_marker(field, images.store, shard_number)
    restore_marker(marker)
    if marker_holds(marker, inputs):
        return f"{field} {images.store} shard {shard_number}: already prepared"
    # from here on the shard is in the making: no old marker may vouch for it
    remove_marker(marker)

    record = read_record(run, field)
    size, shape = record["shard_size"], (channels(settings), settings.size_px, settings.size_px)
    store = run.layout.store(field, images.store)
    attributes = {"field": field, "survey": images.survey, "preparation": preparation_identity(settings)}
    ensure_store(store, record["shards"], size, shape, attributes)
    rows = ShardImages.empty(size, shape)
    position = dict(zip(frame["source_id"], frame["position"], strict=True))
    sources = {source.source_id: source for source in sources_of(frame)}
    pack = run.layout.fetched(field, images.survey, shard_number)
    for fetched in read_contents(pack):
        survey = run.survey(fetched.served_by or images.survey)
        _fill(rows, position[fetched.source_id], survey, settings, sources[fetched.source_id], fetched)
    written = write_shard(store, shard_number, rows)
    write_marker(marker, inputs, written)
    return f"{field} {images.store} shard {shard_number}: {int(rows.valid.sum())} of {len(position)} images usable"


def _check_fetched(run: Run, field: str, survey: str, shard_number: int, sources: str) -> str:
    """Make sure that a shard's pack is the one asked for and as it was written; gives its content's hash."""
    path = run.layout.fetch_marker(field, survey, shard_number)
    name = f"Shard {shard_number} of {field}"
    fetched = read_marker(path)
    if fetched is None:
        raise ConfigError(f"{name} has not been fetched from {survey}: `galgaze fetch`.")
    made_from = fetched["inputs"]
    if (made_from["sources"], made_from["survey"]) != (sources, run.survey_identity(survey)):
        raise ConfigError(
            f"{name} was fetched from {survey} for another list of sources, or with other settings: `galgaze fetch`."
        )
    broken = broken_outputs(path)
    if broken:
        remove_marker(path)
        raise TransientError(
            f"{broken[0]}: missing or changed since it was written ({name}). Its marker has been removed: run the "
            "same snakemake command again, or `galgaze fetch`."
        )
    return made_from["content"]


def _fill(rows: ShardImages, row: int, survey: Survey, settings, source: Source, fetched: Fetched) -> None:
    """Put one source into its row."""
    rows.source_id[row] = source.source_id
    state, reason = fetched.status, fetched.status_reason
    if state == status.OK:
        rows.image_sha256[row] = fetched.sha256
        try:
            prepared = prepare(survey.decode(fetched.content, source), settings, source.las_arcsec)
        except (BadImage, NoCoverage) as error:
            state = status.BAD_IMAGE if isinstance(error, BadImage) else status.NO_COVERAGE
            reason = error.reason
        else:
            state, reason = prepared.status, prepared.status_reason
            rows.coverage[row] = prepared.coverage
            rows.centre_px[row] = prepared.centre_px
            rows.jacobian_arcsec[row] = prepared.jacobian_arcsec
            rows.pixel_scale_arcsec[row] = pixel_side(prepared.jacobian_arcsec)
            if state == status.OK:
                rows.image[row] = prepared.pixels
                rows.valid[row] = True
    rows.status[row], rows.status_reason[row] = state, reason or ""
