"""From a YAML file to a `Config`, or to one message that names every key at fault."""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from galgaze.config.section import nearest
from galgaze.config.whole import Config
from galgaze.errors import ConfigError


def load_config(path: str | Path) -> Config:
    """Read and check a configuration file.

    Raises
    ------
    ConfigError
        If the file is missing, is not YAML, or does not fit `Config`; the message names every key at
        fault and the nearest valid one.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot read the configuration ({error.strerror}).") from error
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: this is not valid YAML: {' '.join(str(error).split())}") from error
    return check_config(raw, str(path))


def check_config(raw: Any, origin: str = "configuration") -> Config:
    """Turn plain data (as read from YAML) into a `Config`; see `load_config` for what is raised."""
    if not isinstance(raw, dict):
        raise ConfigError(f"{origin}: expected keys and values, found {type(raw).__name__}.")
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        problems = "\n".join(f"  - {_explain(problem, raw)}" for problem in error.errors())
        raise ConfigError(f"{origin}: the configuration cannot be used:\n{problems}") from error


def _explain(problem: dict, raw: dict) -> str:
    """One validation problem as a sentence: where, what, what was expected."""
    location = [str(part) for part in problem["loc"]]
    where = ".".join(_as_written(location, raw, problem["type"] == "missing")) or "top level"
    if problem["type"] == "extra_forbidden":
        siblings = _siblings(location)
        hint = nearest(location[-1], siblings)
        return f"{where}: unknown key{hint or '; valid here: ' + ', '.join(siblings)}"
    if problem["type"] == "missing":
        return f"{where}: this key is required"
    message = problem["msg"].removeprefix("Value error, ")
    if where == "top level":
        return message
    given = problem["input"]
    shown = "" if isinstance(given, dict) else f" (found {given!r})"
    return f"{where}: {message[0].lower()}{message[1:]}{shown}"


def _as_written(location: list[str], raw: Any, last_is_missing: bool) -> list[str]:
    """Only those parts of a pydantic location that stand in the user's file.

    pydantic puts in the tag of a union and '[key]'; the last part may be a key that is missing.
    """
    parts = []
    for part in location:
        keys = {str(key): value for key, value in raw.items()} if isinstance(raw, dict) else {}
        if isinstance(raw, list) and part.isdigit():
            parts.append(part)
            raw = raw[int(part)]
        elif part in keys:
            parts.append(part)
            raw = keys[part]
        elif part is location[-1] and last_is_missing:
            parts.append(part)
    return parts


def _siblings(location: list[str]) -> list[str]:
    """Names of the keys that are valid beside the last part of ``location``."""
    node = Config.model_json_schema()
    definitions = node["$defs"]
    for part in location[:-1]:
        node = _descend(node, part, definitions)
        if node is None:
            return []
    return list(node.get("properties", {}))


def _descend(node: dict, part: str, definitions: dict) -> dict | None:
    patterns = list(node.get("patternProperties", {}).values())
    child = node.get("properties", {}).get(part) or next(iter(patterns), None) or node.get("additionalProperties")
    if not isinstance(child, dict):
        return None
    if "discriminator" in child:  # the next part of the location is the union's tag
        mapping = child["discriminator"]["mapping"]
        return {"properties": {tag: {"$ref": reference} for tag, reference in mapping.items()}}
    for option in [child, *child.get("anyOf", [])]:
        if "$ref" in option:
            return definitions[option["$ref"].removeprefix("#/$defs/")]
    return child


def config_json_schema() -> dict:
    """The JSON schema of ``config.yaml``, generated from `Config`."""
    return Config.model_json_schema()
