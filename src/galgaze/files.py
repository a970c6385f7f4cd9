"""Files that are either whole or not there, and markers that say what a finished step has written."""

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def atomic_path(path: str | Path, durable: bool = True):
    """Give a temporary path beside ``path``; on success it is flushed to disk and takes the name ``path``.

    After an exception, or a kill, nothing stands under ``path`` that was not there before. Unless it is durable the
    flush is left to the system: quicker, for files that are verified when read.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        if durable:
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically, keys in the order given."""
    write_bytes(path, (json.dumps(value, indent=1) + "\n").encode())


def write_if_changed(path: str | Path, content: bytes) -> bool:
    """Write atomically unless the file holds ``content`` already, so that its time does not change."""
    path = Path(path)
    if path.exists() and path.read_bytes() == content:
        return False
    write_bytes(path, content)
    return True


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """SHA-256 of plain data, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


# A marker stands for the work of one job. It is written last, so that where it stands the work is whole:
#     {"inputs": anything that decides the result, "outputs": {path: sha256, ...}}
# Paths are relative to the marker's folder, so that a results folder can be moved.
#
# A marker is what a job declares to Snakemake, which removes it before the job starts again, also when the job was
# killed after its last line but before Snakemake took note. So a marker has a twin, a hidden file beside it that
# Snakemake does not know, and a stage begins with `restore_marker`.


def write_marker(marker: str | Path, inputs: dict, outputs: list[Path]) -> None:
    """Write a job's marker: the identity of its inputs, and the hashes of what it wrote."""
    marker = Path(marker)
    hashes = {os.path.relpath(path, marker.parent): sha256_file(path) for path in outputs}
    for path in (_twin(marker), marker):
        write_json(path, {"inputs": inputs, "outputs": hashes})


def _twin(marker: Path) -> Path:
    return marker.with_name(f".{marker.name}")


def restore_marker(marker: str | Path) -> None:
    """Bring back a marker that Snakemake has removed; whether it still holds is for `marker_holds` to say."""
    marker = Path(marker)
    if not marker.exists() and _twin(marker).exists():
        write_bytes(marker, _twin(marker).read_bytes())


def remove_marker(marker: str | Path) -> None:
    """Take back a marker: what it stands for is not, or no longer, there."""
    for path in (Path(marker), _twin(Path(marker))):
        path.unlink(missing_ok=True)


def read_marker(marker: str | Path) -> dict | None:
    """What a marker says, or None where there is no readable one."""
    try:
        value = json.loads(Path(marker).read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) and "inputs" in value and "outputs" in value else None


def broken_outputs(marker: str | Path) -> list[str]:
    """Outputs named by a marker that are missing or no longer have the hash they were written with."""
    marker = Path(marker)
    value = read_marker(marker) or {"outputs": {}}
    broken = []
    for name, expected in value["outputs"].items():
        path = marker.parent / name
        if not path.is_file() or sha256_file(path) != expected:
            broken.append(str(path))
    return broken


def marker_holds(marker: str | Path, inputs: dict) -> bool:
    """Whether a marker stands for these inputs, and everything that it names is still as it was written."""
    value = read_marker(marker)
    return value is not None and value["inputs"] == json.loads(json.dumps(inputs)) and not broken_outputs(marker)
