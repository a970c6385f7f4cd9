"""Sources in: a table or a query of a public catalogue becomes checked rows, or one message that lists what to repair.

Every way in ends in the same frame, with the columns `FIELD_COLUMNS` in the order of the source. Nothing is
guessed: a unit, a number or a label that is not understood stops the run before any request, with row
numbers (row 1 is the first data row).
"""

from galgaze.fields.queries import read_query, resolve_query
from galgaze.fields.rows import FIELD_COLUMNS, check_ids, safe_name, source_list_sha256
from galgaze.fields.tables import read_table

__all__ = [
    "FIELD_COLUMNS",
    "check_ids",
    "read_query",
    "read_table",
    "resolve_query",
    "safe_name",
    "source_list_sha256",
]
