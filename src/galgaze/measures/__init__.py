"""Numbers out of arrays: pure functions that know no files."""
