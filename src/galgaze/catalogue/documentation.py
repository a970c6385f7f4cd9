"""The column table as text for people."""

from galgaze.catalogue.columns import Column, catalogue_columns
from galgaze.tasks import TASKS


def columns_table(columns: tuple[Column, ...]) -> str:
    """Markdown: name, dtype, unit, UCD, description, what a null means."""
    lines = ["| column | dtype | unit | UCD | description | null means |", "|---|---|---|---|---|---|"]
    for column in columns:
        cells = (
            f"`{column.name}`",
            str(column.dtype),
            column.unit,
            column.ucd,
            column.description,
            column.null or "never",
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def columns_page() -> str:
    """The page ``docs/columns.md``: the columns of every task."""
    sections = [
        "# The catalogue's columns",
        "Generated from `src/galgaze/catalogue/columns.py` by `galgaze columns`; do not edit. Units, UCDs and "
        "descriptions stand in each Parquet file too, in the metadata of its fields; under the key `galgaze` of the "
        "file's metadata is the provenance, as JSON.",
    ]
    for task in TASKS.values():
        sections += [f"## {task.name}", columns_table(catalogue_columns(task))]
    return "\n\n".join(sections) + "\n"
