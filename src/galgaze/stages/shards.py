"""Working through the shards of a field with Dask: a part a shard, finished parts not done again."""

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from galgaze.errors import ConfigError, TransientError
from galgaze.files import atomic_path, broken_outputs, read_marker, remove_marker, sha256_json
from galgaze.layout import Layout
from galgaze.stages.terminal import say

INPUTS_KEY = b"galgaze_inputs"
NO_DASHBOARD = {"dashboard_address": None}
WORKER_MEMORY = "4GB"  # of a Slurm worker, where dask-jobqueue's configuration says nothing


# ---- parts: a stage's result for one shard, which knows what it was made from


def part_holds(path: Path, inputs: dict) -> bool:
    """Whether a part stands there whole, made from these inputs."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowInvalid):
        return False
    return metadata.get(INPUTS_KEY) == sha256_json(inputs).encode()


def write_part(path: Path, rows: list[dict], schema: pa.Schema, inputs: dict) -> None:
    """Write a part atomically, the hash of its inputs in its metadata."""
    table = pa.Table.from_pylist(rows, schema.with_metadata({INPUTS_KEY: sha256_json(inputs).encode()}))
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_part(path: Path) -> pd.DataFrame:
    """Read a part."""
    return pq.read_table(path).to_pandas()


def check_store_shard(layout: Layout, field: str, store: str, shard: int) -> dict:
    """Make sure that a shard of a store is as it was written; gives its files' hashes.

    Zarr reads a missing chunk as zeros without a word, so this must come before every use.

    Raises
    ------
    ConfigError
        If the shard was never made.
    TransientError
        If it has been damaged since; its marker is removed, so that the same command makes it again.
    """
    path = layout.store_marker(field, store, shard)
    marker = read_marker(path)
    if marker is None:
        raise ConfigError(f"Shard {shard} of {field} is not in the store {store}: run `galgaze shard`, or snakemake.")
    broken = broken_outputs(path)
    if broken:
        remove_marker(path)
        raise TransientError(
            f"{broken[0]}: missing or changed since it was written (shard {shard} of {field}). Its marker has been "
            "removed: run the same snakemake command again, and the shard is made anew."
        )
    return marker["outputs"]


# ---- Dask


@contextlib.contextmanager
def open_client(workers: int, where: str = "local") -> Iterator:
    """A Dask client with so many single-threaded workers.

    Parameters
    ----------
    workers : int
        Workers x one thread = cores.
    where : str
        ``local``: processes on this machine; ``slurm``: jobs through dask-jobqueue (partition, memory and the
        like from its own configuration, ``jobqueue.slurm``); else the address of a running scheduler.
    """
    from distributed import Client, LocalCluster

    with contextlib.ExitStack() as stack:
        if where == "local":
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                **NO_DASHBOARD,
                silence_logs="ERROR",
                memory_limit=0,  # bounded by shard size and workers; a nanny that kills helps nobody here
            )
            address = stack.enter_context(cluster)
        elif where == "slurm":
            import dask
            from dask_jobqueue import SLURMCluster

            memory = dask.config.get("jobqueue.slurm.memory", None) or WORKER_MEMORY
            address = stack.enter_context(
                SLURMCluster(cores=1, processes=1, memory=memory, scheduler_options=NO_DASHBOARD)
            )
            address.scale(workers)
        else:
            address = where
        try:
            client = Client(address, timeout=60)
        except OSError as error:
            raise TransientError(
                f"No Dask scheduler answers at {where!r} ({error}). Start it, or use another."
            ) from error
        yield stack.enter_context(client)


def map_shards(
    function: Callable[..., int], arguments: dict[int, tuple], what: str, workers: int, dask: str = "local"
) -> int:
    """Run ``function(*arguments[shard])`` for every shard; gives the sum of what it returns.

    Progress goes to the log. Each call writes its own part, so order and retries do not matter.
    """
    if not arguments:
        return 0
    from distributed import as_completed
    from distributed.scheduler import KilledWorker

    started, total = time.monotonic(), 0
    workers = max(1, min(workers, len(arguments)))
    with open_client(workers, dask) as client:
        say(f"{what}: {len(arguments)} shards on {workers} workers")
        futures = {client.submit(function, *values, pure=False): shard for shard, values in arguments.items()}
        for done, future in enumerate(as_completed(futures), start=1):
            try:
                total += future.result()
            except KilledWorker as error:
                raise TransientError(
                    f"{what}: shard {futures[future]} killed its worker several times (out of memory?). Use fewer "
                    "workers or smaller shards, and run again; finished shards are kept."
                ) from error
            rate = done / (time.monotonic() - started)
            left = (len(futures) - done) / rate
            say(f"{what}: {done} of {len(futures)} shards, {left:.0f} s left")
    return total
