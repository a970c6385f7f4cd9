"""What every stage needs to know: the configuration, the paths, and who uses which images."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from galgaze.config import Config, TrainSettings, load_config
from galgaze.errors import ConfigError
from galgaze.files import sha256_json
from galgaze.images.preparation import store_name
from galgaze.layout import Layout
from galgaze.surveys.base import Source, Survey
from galgaze.surveys.registry import open_survey
from galgaze.tasks import TASKS, Task


@dataclass(frozen=True)
class Images:
    """The images that one task needs of one field: field, survey, task (whose preparation) and store."""

    field: str
    survey: str
    task: str
    store: str


class Run:
    """A checked configuration with its results folder."""

    def __init__(self, config: Config):
        self.config = config
        self.layout = Layout(config.results)
        self._surveys: dict[str, Survey] = {}

    @classmethod
    def load(cls, path: str | Path) -> "Run":
        """From a configuration file; raises `ConfigError`."""
        return cls(load_config(path))

    # ---- surveys and stores

    def survey(self, name: str) -> Survey:
        """A survey by its name in the configuration."""
        if name not in self.config.surveys:
            raise ConfigError(f"The survey {name!r} is not in the configuration ({', '.join(self.config.surveys)}).")
        if name not in self._surveys:
            config = self.config
            self._surveys[name] = open_survey(
                config.surveys[name], config.contact, config.hosts, config.cache, config.no_coverage_days
            )
        return self._surveys[name]

    def fallback(self, name: str) -> str | None:
        """The survey that is asked where this one fails, if any."""
        return getattr(self.config.surveys[name], "fallback", None)

    def survey_identity(self, name: str) -> dict:
        """What decides the bytes that are fetched, but for the sources: the survey, and what may stand in for it."""
        identity, fallback = self.survey(name).identity(), self.fallback(name)
        if fallback is None:
            return identity
        # by name too: packs say by which survey each image is to be read
        return identity | {"fallback": {"name": fallback, **self.survey(fallback).identity()}}

    def images(self, field: str, task: str, survey: str | None = None) -> Images:
        """Which store holds a field's images for a task; the survey is the task's unless given."""
        self.check_field(field)
        settings = self.task(task)
        survey = survey or settings.survey
        name = store_name(survey, self.survey(survey).identity(), settings.preparation)
        return Images(field, survey, task, name)

    def training_images(self, task: str) -> Images | None:
        """The images of the field that a task's model is trained on; None where that is a published set."""
        train = self.train_settings(task)
        return self.images(train.field, task, train.survey) if train.field else None

    def training_files(self, task: str) -> list[str]:
        """Files of the user's that a task's training reads."""
        train = self.train_settings(task)
        files = [train.dataset.path if train.dataset else None, train.votes, train.initial_weights]
        return [file for file in files if file is not None]

    def task(self, name: str):
        """A task's settings."""
        if name not in self.config.tasks:
            raise ConfigError(f"The task {name!r} is not in the configuration ({', '.join(self.config.tasks)}).")
        return self.config.tasks[name]

    def train_settings(self, task: str) -> TrainSettings:
        """A task's training; raises `ConfigError` where the model comes from a file."""
        train = self.task(task).model.train
        if train is None:
            raise ConfigError(f"tasks.{task}.model names weights; there is nothing to train.")
        return train

    def models(self, task: str) -> list[Path]:
        """The task's model files: those that the configuration names (an ensemble: several), or the trained one."""
        weights = self.task(task).model.weights
        if weights is None:
            return [self.layout.model(task)]
        return [Path(path) for path in ([weights] if isinstance(weights, str) else weights)]

    # ---- fields

    def check_field(self, field: str) -> None:
        """Raise `ConfigError` for a field that is not in the configuration."""
        if field not in self.config.fields:
            raise ConfigError(f"The field {field!r} is not in the configuration ({', '.join(self.config.fields)}).")

    def shard_size(self, field: str) -> int:
        """Sources a shard."""
        return self.config.fields[field].shard_size or self.config.shard_size

    def label_tasks(self, field: str) -> list[Task]:
        """The tasks whose classes a field's labels may name: those run on it, and those trained on it."""
        run_on = set(self.config.fields[field].tasks)
        trained = {n for n, t in self.config.tasks.items() if t.model.train and t.model.train.field == field}
        return [TASKS[name] for name in TASKS if name in run_on | trained]

    def all_images(self) -> list[Images]:
        """Every (field, survey, preparation) that the configuration asks for, once each."""
        wanted: dict[tuple[str, str], Images] = {}
        for field, settings in self.config.fields.items():
            for task in settings.tasks:
                images = self.images(field, task)
                wanted.setdefault((field, images.store), images)
        for task in self.trained_tasks():
            images = self.training_images(task)
            if images:
                wanted.setdefault((images.field, images.store), images)
        return list(wanted.values())

    def used_tasks(self) -> list[str]:
        """Tasks that some field asks for."""
        return [name for name in self.config.tasks if any(name in f.tasks for f in self.config.fields.values())]

    def trained_tasks(self) -> list[str]:
        """Used tasks whose model is trained in this run."""
        return [name for name in self.used_tasks() if self.config.tasks[name].model.train]


def read_sources(layout: Layout, field: str, shard: int | None = None) -> pd.DataFrame:
    """The plan of a field, or one shard of it, in the shards' order.

    Raises
    ------
    ConfigError
        If there is no such plan or shard.
    """
    path = layout.plan(field) if shard is None else layout.plan_shard(field, shard)
    try:
        return pd.read_parquet(path)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: there is no plan of the field {field!r} (or no such shard). Make it with `galgaze plan`."
        ) from error


def sources_of(frame: pd.DataFrame) -> list[Source]:
    """Rows of a plan as `Source`."""
    columns = (frame["source_id"], frame["ra_deg"], frame["dec_deg"], frame["las_arcsec"])
    return [Source(*row) for row in zip(*(column.tolist() for column in columns), strict=True)]


def sources_identity(frame: pd.DataFrame) -> str:
    """Hash of what images depend on: ids, positions, sizes, and which rows are asked for."""
    columns = ["source_id", "ra_deg", "dec_deg", "las_arcsec", "requested"]
    return sha256_json([[None if value != value else value for value in frame[name].tolist()] for name in columns])
