"""HDF5 files of published sets, opened with care: nothing outside of the file is read."""

import contextlib
from pathlib import Path

from galgaze.errors import ConfigError

SLICE = 64  # images read at a time: a set need not fit into memory twice


@contextlib.contextmanager
def open_hdf5(path: Path, origin: str):
    """An open HDF5 file; what goes wrong with it inside the block becomes a `ConfigError`.

    Parameters
    ----------
    path : Path
        The file.
    origin : str
        What file it must be, and where it comes from: the last sentence of the message.
    """
    import h5py

    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file. {origin}")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except (OSError, RuntimeError, KeyError) as error:
        detail = " ".join(str(error).split())[:200]
        raise ConfigError(f"{path}: not a whole HDF5 file ({detail}). {origin}") from error


def datasets(file, names: tuple[str, ...], origin: str) -> list:
    """The datasets of these names in a file or group.

    Raises
    ------
    ConfigError
        If some are missing (all of them are named), or lead out of the file: links and datasets that HDF5 would read
        from elsewhere are not followed.
    """
    import h5py

    where = file.file.filename
    found = {name: _own(file, name, where) for name in names}
    missing = [name for name, value in found.items() if not isinstance(value, h5py.Dataset)]
    if missing:
        holds = ", ".join(sorted(file)[:12]) or "nothing"
        raise ConfigError(f"{where}: no dataset {', '.join(missing)} in it (it holds {holds}). {origin}")
    return list(found.values())


def _own(file, name: str, where: str):
    import h5py

    link = file.get(name, getlink=True)
    if link is None:
        return None
    value = file[name] if isinstance(link, h5py.HardLink) else None
    elsewhere = isinstance(value, h5py.Dataset) and (value.is_virtual or value.external)
    if value is None or elsewhere:
        raise ConfigError(f"{where}: {name} leads out of the file, and is not followed.")
    return value


def text(values) -> list[str]:
    """Strings of a dataset, fixed or variable in length, as str."""
    return [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values]
