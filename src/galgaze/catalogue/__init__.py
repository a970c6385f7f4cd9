"""The column table, and the file that is written from it."""
