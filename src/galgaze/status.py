"""Why a row has, or has not, a prediction: the one list of statuses."""

OK = "ok"
NO_COVERAGE = "no_coverage"
PARTIAL_COVERAGE = "partial_coverage"
FETCH_FAILED = "fetch_failed"
BAD_IMAGE = "bad_image"
NO_SIGNAL = "no_signal"

STATUSES = {
    OK: "predicted",
    NO_COVERAGE: "the survey has no image of this position",
    PARTIAL_COVERAGE: "less of the field of view was observed than the preparation's min_coverage",
    FETCH_FAILED: "the image could not be had after retries; fetching again may help",
    BAD_IMAGE: "what was served is not a usable image (truncated, wrong bands, constant, ...)",
    NO_SIGNAL: "nothing in the image rises above the clip level",
}
