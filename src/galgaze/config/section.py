"""What every part of the configuration has in common."""

import difflib
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

NAME = r"^[a-z0-9][a-z0-9_]*$"  # of fields and surveys: becomes a folder and a Snakemake wildcard


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _yes_and_no_are_no_numbers(cls, given):
        # YAML's no would be taken for 0: a pause of no seconds
        for name, value in given.items() if isinstance(given, dict) else ():
            if isinstance(value, bool) and name in cls.model_fields and cls.model_fields[name].annotation is not bool:
                raise ValueError(f"{name}: yes and no (true and false) are no values of this key")
        return given


def _address(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("expected an address that begins with https:// or http://")
    return value


def _at_home(value: str) -> str:
    return str(Path(value).expanduser()) if value.startswith("~") else value


Address = Annotated[str, AfterValidator(_address)]
Folder = Annotated[str, AfterValidator(_at_home)]


def expect(name: str, known: dict, where: str) -> None:
    """Raise ValueError unless the name is defined."""
    if name not in known:
        raise ValueError(f"{where}: {name!r} is not defined; defined are: {', '.join(known)}{nearest(name, known)}")


def nearest(name: str, known) -> str:
    """The known name that was perhaps meant, for the end of a message."""
    close = difflib.get_close_matches(name, [str(key) for key in known], n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
