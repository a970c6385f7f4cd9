import pytest

from galgaze.config import QuerySource, check_config
from galgaze.errors import ConfigError

CONE = {"ra_deg": 180.0, "dec_deg": 30.0, "radius_deg": 0.5}


@pytest.mark.parametrize(
    ("service", "catalogue", "columns"),
    [
        ("vizier", "VIII/92/first14", {"source_id": "FIRST", "ra_deg": "RAJ2000", "dec_deg": "DEJ2000"}),
        ("noirlab", "ls_dr9.tractor", {"source_id": "ls_id", "ra_deg": "ra", "dec_deg": "dec"}),
        ("sdss", "Galaxy", {"source_id": "objID", "redshift": "z", "petrosian_radius_arcsec": "petroRad_r"}),
    ],
)
def test_every_service_has_its_defaults(service, catalogue, columns):
    query = QuerySource(service=service, cone=CONE)
    assert query.catalogue == catalogue
    assert columns.items() <= query.columns.model_dump().items()
    assert QuerySource(**query.model_dump()) == query
    assert QuerySource(service=service, cone=CONE, catalogue="other").catalogue == "other"


def test_the_service_is_vizier_where_none_is_named():
    assert QuerySource(cone=CONE) == QuerySource(service="vizier", cone=CONE)


def test_columns_given_stand_beside_the_defaults_of_the_service():
    columns = QuerySource(service="sdss", cone=CONE, columns={"redshift": None, "label": "class"}).columns
    assert (columns.source_id, columns.redshift, columns.label) == ("objID", None, "class")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"magnitude": {"faintest": 17}}, r"magnitude and radius are for noirlab and sdss; .*constraints: \{rmag"),
        ({"radius": {"smallest_arcsec": 3}}, "magnitude and radius are for noirlab and sdss"),
        ({"service": "sdss", "constraints": {"r": "<17"}}, "constraints are for vizier; use magnitude and radius"),
        ({"service": "sdss", "magnitude": {"brightest": 18, "faintest": 17}}, "brightest is the smaller magnitude"),
        ({"service": "sdss", "magnitude": {"band": "y"}}, "query.magnitude.band: input should be 'u', 'g'"),
        (
            {"service": "sdss", "magnitude": {"faintest": "17; x"}},
            "query.magnitude.faintest: input should be a valid n",
        ),
        ({"service": "sdss", "magnitude": {"faintest": float("nan")}}, "query.magnitude.faintest: "),
        ({"service": "sdss", "radius": {"smallest_arcsec": 9, "largest_arcsec": 8}}, "smallest_arcsec is greater than"),
        ({"service": "sdss", "radius": {"smallest_arcsec": -1}}, "query.radius.smallest_arcsec: input should be great"),
        ({"service": "sdss", "box": CONE}, "query.box.width_deg: this key is required"),
        ({"service": "sdss", "columns": 3}, "query.columns: input should be"),
        ({"service": "gaia"}, "query.service: input should be 'vizier', 'noirlab' or 'sdss'"),
        ({"service": ["sdss"]}, "query.service: input should be 'vizier', 'noirlab' or 'sdss'"),
    ],
)
def test_settings_that_are_refused(query, message):
    with pytest.raises(ConfigError, match=message):
        check_config({"fields": {"one": {"query": {"cone": CONE} | query}}})
