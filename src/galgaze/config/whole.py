"""The whole configuration, and what holds between its parts."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from galgaze.config.fields import FieldSettings
from galgaze.config.section import NAME, Folder, Section, expect
from galgaze.config.surveys import SurveySettings
from galgaze.config.tasks import TaskSettings
from galgaze.tasks import TASKS


class Config(Section):
    """The whole configuration."""

    results: Folder = Field("results", description="folder for everything a run leaves")
    cache: Folder = Field("results/cache", description="folder of raw downloads, may be shared between runs")
    no_coverage_days: float = Field(
        90.0, ge=0, description="days after which a position that had no coverage is asked for again"
    )
    hosts: str | None = Field(
        None,
        description="folder by which all jobs, runs and users that share it keep one limit a host; null: "
        "~/.cache/galgaze/hosts",
    )
    contact: str = Field("", description="e-mail or address of the person responsible, told to the surveys")
    shard_size: int = Field(500, ge=1, le=100_000, description="sources a shard: the unit of work and storage")
    surveys: dict[Annotated[str, Field(pattern=NAME)], SurveySettings]
    fields: dict[Annotated[str, Field(pattern=NAME)], FieldSettings]
    tasks: dict[Literal[tuple(TASKS)], TaskSettings]

    @field_validator("contact")
    @classmethod
    def _fits_a_header(cls, contact):
        if not (contact.isascii() and contact.isprintable()):
            raise ValueError("it is sent with every request, and must be ASCII in one line")
        return contact

    @model_validator(mode="after")
    def _references(self):
        for name, survey in self.surveys.items():
            if getattr(survey, "fallback", None):
                _check_fallback(name, survey, self.surveys)
        for name, field in self.fields.items():
            for task in field.tasks:
                expect(task, self.tasks, f"fields.{name}.tasks")
            if field.simulated:
                expect(field.simulated.survey, self.surveys, f"fields.{name}.simulated.survey")
                kind = self.surveys[field.simulated.survey].kind
                if not kind.startswith("simulated"):
                    raise ValueError(f"fields.{name}.simulated.survey: {kind} is not a simulated survey")
        for name, task in self.tasks.items():
            expect(task.survey, self.surveys, f"tasks.{name}.survey")
            optical = TASKS[name].kind == "optical"
            if (task.preparation.kind == "optical_composite") != optical:
                raise ValueError(f"tasks.{name}.preparation.kind: {task.preparation.kind} does not fit {name}")
            if task.bars and TASKS[name].barred_class is None:
                raise ValueError(f"tasks.{name}.bars: {name} has no class of barred galaxies; leave bars out")
            if task.model.train:
                where = f"tasks.{name}.model.train"
                if task.model.train.field:
                    expect(task.model.train.field, self.fields, f"{where}.field")
                if task.model.train.survey:
                    expect(task.model.train.survey, self.surveys, f"{where}.survey")
        return self


def _check_fallback(name: str, survey, surveys: dict) -> None:
    """Raise ValueError unless the fallback's images are of the same kind of sky, and of the real one."""
    where, fallback = f"surveys.{name}.fallback", survey.fallback
    expect(fallback, surveys, where)
    if fallback == name:
        raise ValueError(f"{where}: a survey cannot stand in for itself")
    if surveys[fallback].kind.startswith("simulated"):
        raise ValueError(f"{where}: {fallback} is simulated, and its images would pass for those of the sky")
    if _is_radio(surveys[fallback]) not in (None, _is_radio(survey)):
        raise ValueError(f"{where}: one of {name} and {fallback} is optical, the other radio")


def _is_radio(survey) -> bool | None:
    """Whether a survey serves radio maps; None: a folder may hold anything."""
    if survey.kind == "hips2fits":
        return "radio" in survey.hips
    return {"legacy": False, "first": True, "skyview": True}.get(survey.kind)
