"""Quantities as people read them, the words of pages, and who we say we are."""

import re

from galgaze import __version__


def user_agent(contact: str) -> str:
    """How we introduce ourselves to a public server."""
    return f"galgaze/{__version__}" + (f" ({contact})" if contact else "")


def duration(seconds: float) -> str:
    """``40 s``, ``12 min``, ``3.5 h``, ``2.1 days``."""
    for unit, length, digits in (("days", 86_400, 1), ("h", 3600, 1), ("min", 60, 0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.{digits}f} {unit}"
    return f"{seconds:.0f} s"


def size(megabytes: float) -> str:
    """``3.1 MB``, ``15.8 GB``."""
    return f"{megabytes / 1e3:.1f} GB" if megabytes >= 1e3 else f"{megabytes:.1f} MB"


def words_of_page(body: bytes) -> str:
    """The words of an HTML page, in one line."""
    text = re.sub(r"(?is)<(script|style)\b.*?</\1>|<[^>]*>", " ", body[:20_000].decode("latin-1"))
    return " ".join(text.split())
