"""The column table as text for people."""

from galgaze.catalogue.columns import Column


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
