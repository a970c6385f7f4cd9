"""A folder of accepted downloads, addressed by the request; Snakemake knows nothing of it."""

import hashlib
from pathlib import Path

from galgaze.files import sha256_json, write_bytes
from galgaze.surveys.base import Source

DIGEST_BYTES = 32


class DownloadCache:
    """Bodies by request; each file is the body's SHA-256 followed by the body, so that decay is noticed.

    Parameters
    ----------
    folder : path
        Made when first written to; may be shared between fields and runs.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)

    def path(self, identity: dict, source: Source) -> Path:
        """Where the body for this survey identity and position stands."""
        request = {**identity, "ra_deg": source.ra_deg, "dec_deg": source.dec_deg}
        address = sha256_json(request)
        return self.folder / address[:2] / address

    def get(self, identity: dict, source: Source) -> bytes | None:
        """The body, or None where there is none or it no longer has its hash (then it is removed)."""
        path = self.path(identity, source)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        digest, body = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != digest:
            path.unlink(missing_ok=True)
            return None
        return body

    def put(self, identity: dict, source: Source, body: bytes) -> None:
        """Keep an accepted body."""
        write_bytes(self.path(identity, source), hashlib.sha256(body).digest() + body)
