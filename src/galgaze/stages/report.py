"""Stage 7: one page a field."""

from galgaze.files import write_bytes


def report(run, field):
    write_bytes(run.layout.report(field), b"x")
    return "report"
