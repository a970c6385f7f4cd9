"""Where everything stands below the results folder: the one place that forms paths.

The Snakemake rules call the same functions with wildcards (``layout.fetch_marker("{field}", ...)``).
"""

from pathlib import Path


def shard_name(shard: int | str) -> str:
    """A shard's name: ``shard-00042``; text, such as a wildcard, is taken as it is."""
    return f"shard-{shard:05d}" if isinstance(shard, int) else f"shard-{shard}"


class Layout:
    """Paths below one results folder."""

    def __init__(self, results: str | Path):
        self.results = Path(results)

    def config(self) -> Path:
        """The configuration as resolved and checked, read by every job."""
        return self.results / "config.resolved.json"

    def log(self, *parts: str) -> Path:
        """A job's log."""
        return self.results / "logs" / Path(*parts[:-1]) / f"{parts[-1]}.log"

    # ---- a field

    def plan(self, field: str) -> Path:
        """Folder of the plan: one Parquet file a shard; pandas reads the folder as one table."""
        return self.results / field / "sources.parquet"

    def plan_shard(self, field: str, shard: int | str) -> Path:
        """The sources of one shard."""
        return self.plan(field) / f"{shard_name(shard)}.parquet"

    def plan_record(self, field: str) -> Path:
        """What the plan was made from."""
        return self.results / field / "plan.json"

    def query(self, field: str) -> Path:
        """The kept answer of the query that defines the field."""
        return self.results / field / "query.ecsv"

    def truth(self, field: str) -> Path:
        """Truth of a simulated field; no stage that predicts reads it."""
        return self.results / field / "truth.parquet"

    def report(self, field: str) -> Path:
        """The field's page."""
        return self.results / field / "report.html"

    # ---- images

    def fetched(self, field: str, survey: str, shard: int | str) -> Path:
        """A shard's cutouts as served, with the manifest, in one file."""
        return self.results / field / "cutouts" / survey / f"{shard_name(shard)}.parquet"

    def fetch_marker(self, field: str, survey: str, shard: int | str) -> Path:
        """Marker of `fetched`."""
        return self.fetched(field, survey, shard).with_suffix(".json")

    def fetch_ledger(self, field: str, survey: str, shard: int | str) -> Path:
        """What the jobs that fetched a shard did: requests, bytes, time, failures; a line a job."""
        return self.fetched(field, survey, shard).with_suffix(".ledger.jsonl")

    def store(self, field: str, store: str) -> Path:
        """The Zarr store of prepared images; ``store`` is survey and hash of the preparation."""
        return self.results / field / "images" / f"{store}.zarr"

    def store_marker(self, field: str, store: str, shard: int | str) -> Path:
        """Marker of one shard of a store."""
        return self.results / field / "images" / store / f"{shard_name(shard)}.json"

    # ---- models

    def model(self, task: str) -> Path:
        """The trained model of a task."""
        return self.results / "models" / task / "model.safetensors"

    def checkpoint(self, task: str) -> Path:
        """State of an unfinished training."""
        return self.results / "models" / task / "checkpoint.pt"

    def last_epoch(self, task: str) -> Path:
        """State after the last epoch of a finished training; the model file holds the best epoch's weights."""
        return self.results / "models" / task / "last_epoch.pt"

    def training_curve(self, task: str) -> Path:
        """Loss and accuracy by epoch."""
        return self.results / "models" / task / "training_curve.csv"

    def training_log(self, task: str) -> Path:
        """Folder of the training's log, for TensorBoard."""
        return self.results / "models" / task / "tensorboard"

    def training_sources(self, task: str) -> Path:
        """Which sources the model was trained and validated on."""
        return self.results / "models" / task / "training_sources.parquet"

    # ---- results of a task on a field

    def parts(self, field: str, task: str, stage: str) -> Path:
        """Folder of a stage's results, a file a shard."""
        return self.results / field / task / stage

    def part(self, field: str, task: str, stage: str, shard: int | str) -> Path:
        """A stage's results for one shard."""
        return self.parts(field, task, stage) / f"{shard_name(shard)}.parquet"

    def stage_marker(self, field: str, task: str, stage: str) -> Path:
        """Marker of a whole stage: all its parts."""
        return self.results / field / task / f"{stage}.json"

    def catalogue(self, field: str, task: str) -> Path:
        """The catalogue."""
        return self.results / field / task / "catalogue.parquet"
