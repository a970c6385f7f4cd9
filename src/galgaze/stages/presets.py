"""Configurations that train on published sets, ready to run: ``workflow/presets`` with the path of the data put in."""

import json
from dataclasses import dataclass
from pathlib import Path

import galgaze
from galgaze.errors import ConfigError
from galgaze.files import write_bytes

FOLDER = Path(galgaze.__file__).resolve().parents[2] / "workflow" / "presets"
PLACEHOLDER = '"@DATA@"'  # in the files of the folder; with the quotes, so that they are YAML as they stand


@dataclass(frozen=True)
class Preset:
    """What a preset does, and what it needs.

    Attributes
    ----------
    purpose : str
        For the list.
    data : str
        What ``--data`` must be, and where it is published.
    expected : tuple of {"file", "folder"}
        Which of them it may be.
    """

    purpose: str
    data: str
    expected: tuple[str, ...]


PRESETS = {
    "mirabest": Preset(
        "FRI against FRII, on MiraBest",
        "the folder of MiraBest's batches (data_batch_1 to 7 and batches.meta) or their archive batches.tar.gz, "
        "published on Zenodo: https://doi.org/10.5281/zenodo.4288837",
        ("file", "folder"),
    ),
    "frdeep": Preset(
        "FRI against FRII, on FR-DEEP",
        "the folder of FR-DEEP's batches (FIRST_PNG_dataset: data_batch_1 to 11 and batches.meta) or their archive, "
        "published at https://github.com/HongmingTang060313/FR-DEEP",
        ("file", "folder"),
    ),
    "radio_galaxy_dataset": Preset(
        "FRI against FRII, on the Radio Galaxy Dataset",
        "the HDF5 file of the Radio Galaxy Dataset (galaxy_data_h5.h5), published at "
        "https://github.com/floriangriese/RadioGalaxyDataset",
        ("file",),
    ),
    "galaxy10": Preset(
        "ten optical classes, on the images of Galaxy10 DECaLS",
        "the HDF5 file Galaxy10_DECals.h5, published on Zenodo: https://zenodo.org/records/10845026; see also "
        "https://astronn.readthedocs.io/en/latest/galaxy10.html",
        ("file",),
    ),
    "galaxy10_positions": Preset(
        "ten optical classes, on cutouts fetched at the positions of Galaxy10 DECaLS",
        "a CSV table with the columns g10_index, ra, dec and galaxy10_class: row number, ra, dec and ans of "
        "Galaxy10_DECals.h5 (https://zenodo.org/records/10845026)",
        ("file",),
    ),
    "galaxy_zoo": Preset(
        "Galaxy Zoo's questions and bars, on pictures with vote fractions",
        "a folder of pictures with a table labels.csv of their vote fractions; those of Galaxy Zoo DECaLS are "
        "published on Zenodo: https://doi.org/10.5281/zenodo.4573248",
        ("folder",),
    ),
}


def list_presets() -> str:
    """Names, purposes and needs, as lines for a terminal."""
    return "\n".join(f"{name}: {preset.purpose}\n    --data: {preset.data}" for name, preset in PRESETS.items())


def make_preset(name: str, data: Path | None) -> str:
    """The text of a configuration for a set.

    Parameters
    ----------
    name : str
        A key of `PRESETS`.
    data : Path or None
        Where the set is. It stands in the configuration as it is given: a relative path is looked up from where the
        run is started.

    Raises
    ------
    ConfigError
        If there is no such preset, or no such data: it says which there are, or what the data must be.
    """
    if name not in PRESETS:
        known = "\n".join(f"  {other}: {preset.purpose}" for other, preset in PRESETS.items())
        raise ConfigError(f"There is no preset {name!r}. There are:\n{known}")
    _check_data(name, data)
    path = FOLDER / f"{name}.yaml"
    try:
        template = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}). Presets stand in galgaze's repository, not in the package: "
            "install it from there with `pip install --editable`."
        ) from error
    # A JSON string is a YAML string, whatever stands in it.
    return template.replace(PLACEHOLDER, json.dumps(str(data), ensure_ascii=False))


def write_preset(name: str, data: Path | None, out: Path) -> str:
    """Write a configuration; gives a line that says what was done. Errors are those of `make_preset`."""
    text = make_preset(name, data)
    if out.exists():
        raise ConfigError(f"{out} exists already, and is left as it is. Remove it, or choose another name for --out.")
    write_bytes(out, text.encode())
    return f"{out}: written. Next: galgaze check --config {out}; snakemake --cores 2 --configfile {out}"


def _check_data(name: str, data: Path | None) -> None:
    preset = PRESETS[name]
    if data is None:
        raise ConfigError(f"galgaze preset {name}: give --data, the path of {preset.data}.")
    if not data.exists():
        raise ConfigError(f"--data {data}: there is nothing of this name. It must be {preset.data}.")
    found = "folder" if data.is_dir() else "file"
    if found not in preset.expected:
        raise ConfigError(f"--data {data}: this is a {found}. It must be {preset.data}.")
