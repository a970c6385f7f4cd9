"""Fault 21, and the configuration's part of 8 and 9: what is wrong with it is said before anything is asked."""

import pytest
import yaml

from tests.faults.zoo import Bench


@pytest.fixture
def bench(tmp_path):
    with Bench(tmp_path) as bench:
        yield bench


@pytest.fixture
def unasked(tmp_path):
    """A survey that has nothing, and will not be asked."""
    with Bench(tmp_path, files={}) as bench:
        yield bench


def change(bench, path: str, value) -> None:
    """Set a key of `config.yaml`, by its path."""
    file = bench.folder / "config.yaml"
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    *sections, key = path.split(".")
    section = config
    for name in sections:
        section = section.setdefault(name, {})
    section[key] = value
    file.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")


def refused(bench, *words) -> str:
    """What a command says to a configuration that cannot be used, and did not ask anybody before."""
    code, said = bench.cli(*words)
    assert code == 2, said
    assert "\ngalgaze: " in f"\n{said}"
    assert "Traceback" not in said
    assert bench.server.requests == []
    assert not (bench.folder / "cache").exists()
    return said


def checked(bench) -> str:
    """As above, of the commands by which a user begins; all say the same."""
    said = {refused(bench, *words) for words in (["check"], ["plan"], ["fetch", "--dry-run"])}
    assert len(said) == 1
    return said.pop()


SKY = "surveys.sky"
MISTAKES = {
    "connection": (f"{SKY}.http.conections", 4, "http.conections: unknown key (did you mean 'connections'?)"),
    "none": (f"{SKY}.http.connections", 0, "http.connections: input should be greater than or equal to 1 (found 0)"),
    "a hundred": (f"{SKY}.http.connections", 100, "http.connections: input should be less than or equal to 16"),
    "half": (f"{SKY}.http.connections", 1.5, "http.connections: input should be a valid integer"),
    "in words": (f"{SKY}.http.pause_s", "a second", "http.pause_s: input should be a valid number"),
    "back in time": (f"{SKY}.http.pause_s", -1, "http.pause_s: input should be greater than or equal to 0 (found -1)"),
    "no number": (f"{SKY}.http.timeout_s", float("nan"), "http.timeout_s: input should be "),
    "empty": (f"{SKY}.http", None, "http: input should be a valid dictionary"),
    "empty survey": (SKY, None, "surveys.sky: input should be a valid dictionary"),
    "no surveys": ("surveys", None, "surveys: input should be a valid dictionary"),
    "mode": (f"{SKY}.mode", "brick", "mode: input should be 'auto', 'cutouts' or 'bricks' (found 'brick')"),
    "moed": (f"{SKY}.moed", "bricks", "moed: unknown key (did you mean 'mode'?)"),
    "bands": (f"{SKY}.bands", "rgz", "bands: expected grz or griz, in this order (found 'rgz')"),
    "a list of bands": (f"{SKY}.bands", ["g", "r", "z"], "bands: input should be a valid string"),
    "fallback": (
        f"{SKY}.fallback",
        "twn",
        "fallback: 'twn' is not defined; defined are: sky, twin (did you mean 'twin'?)",
    ),
    "itself": (f"{SKY}.fallback", "sky", "surveys.sky.fallback: a survey cannot stand in for itself"),
    "fallbak": (f"{SKY}.fallbak", "twin", "fallbak: unknown key (did you mean 'fallback'?)"),
    "footprnt": (f"{SKY}.footprnt", "a.fits", "footprnt: unknown key (did you mean 'footprint'?)"),
    "footprint": (f"{SKY}.footprint", True, "footprint: "),
    "invvr": (f"{SKY}.invvr", True, "invvr: unknown key (did you mean 'invvar'?)"),
    "kind": (f"{SKY}.kind", "legcy", "surveys.sky"),
    "hots": ("hots", "/tmp", "hots: unknown key (did you mean 'hosts'?)"),
    "hosts": ("hosts", 3, "hosts: input should be a valid string (found 3)"),
    "days": ("no_coverage_day", 3, "no_coverage_day: unknown key (did you mean 'no_coverage_days'?)"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_fault_21_mistakes_are_named_with_their_place(unasked, mistake):
    path, value, said = MISTAKES[mistake]
    change(unasked, path, value)
    message = refused(unasked, "check")
    assert "config.yaml: the configuration cannot be used:\n  - " in message
    assert said in message
    assert message.count("\n  - ") == 1


def test_fault_21_all_mistakes_at_once_and_by_every_command(unasked):
    for mistake in ("connection", "mode", "footprnt", "hots"):
        change(unasked, *MISTAKES[mistake][:2])
    message = checked(unasked)
    assert message.count("\n  - ") == 4
    for mistake in ("connection", "mode", "footprnt", "hots"):
        assert MISTAKES[mistake][2] in message


@pytest.mark.parametrize(
    ("urls", "said"),
    [
        ("https://third.ucllnl.org/cgi-bin/firstcutout", "surveys.sky.urls: input should be a valid list"),
        ([], "surveys.sky.urls: list should have at least 1 item"),
        ([None], "surveys.sky.urls.0: input should be a valid string"),
    ],
)
def test_fault_21_addresses_of_first(tmp_path, urls, said):
    with Bench(tmp_path, "first") as bench:
        bench.configure(urls=urls)
        assert said in refused(bench, "check")


def test_fault_21_files_that_are_no_configuration(unasked):
    path = unasked.folder / "config.yaml"
    for text, said in [
        ("surveys: {sky: [", "config.yaml: this is not valid YAML"),
        ("- a\n- b\n", "config.yaml: expected keys and values, found list"),
        ("", "config.yaml: expected keys and values, found NoneType"),
    ]:
        path.write_text(text)
        assert said in checked(unasked)
    path.unlink()
    assert "config.yaml: cannot read the configuration (No such file or directory)" in checked(unasked)


def test_fault_21_a_footprint_that_is_not_there(bench):
    missing = bench.folder / "nowhere.fits"
    bench.configure(footprint=str(missing))
    for words in (["fetch", "--dry-run"], ["fetch", "--field", "field"]):
        said = refused(bench, *words)
        assert f"footprint: the file {missing} cannot be read" in said
        assert "Correct `footprint` of the survey, or leave it out" in said


def test_fault_21_a_footprint_that_is_none(unasked):
    page = unasked.folder / "page.fits"
    page.write_text("<html>Not found</html>")
    unasked.configure(footprint=str(page))
    assert "Expected is a MOC (FITS, JSON or ASCII) or a FITS table of bricks" in refused(unasked, "fetch", "--dry-run")


def test_fault_21_a_folder_of_hosts_that_cannot_be_used(bench):
    (bench.folder / "file").write_text("")
    bench.configure(top={"hosts": str(bench.folder / "file")})
    code, said = bench.cli_fetch()
    assert code == 2
    assert "Name a folder in the key `hosts` that can be written" in said
    assert bench.server.requests == []


def test_fault_08_griz_of_a_layer_without_i(bench):
    """The viewer would send grz without a word."""
    for layer in ("ls-dr9", "ls-dr9-south", "ls-dr10-north", "ls-dr10-grz"):
        bench.configure(bands="griz", layer=layer)
        assert f"bands: the layer {layer} has no i band, and the viewer would send others" in refused(bench, "check")
    bench.configure(bands="griz", layer="ls-dr10-south")
    assert bench.cli_fetch()[0] == 0
    assert set(bench.statuses().values()) == {"ok"}
    assert {params["bands"] for _, _, params in bench.server.requests} == {"griz"}


@pytest.mark.parametrize(("kind", "size", "largest"), [("legacy", 4000, 512), ("first", 2000, 1024)])
def test_fault_09_more_pixels_than_the_service_sends(tmp_path, kind, size, largest):
    with Bench(tmp_path, kind) as bench:
        bench.configure(size_px=size)
        said = checked(bench)
        assert f"surveys.sky.size_px: input should be less than or equal to {largest} (found {size})" in said


def test_fault_09_weights_of_pixels_for_which_there_are_none(unasked):
    unasked.configure(invvar=True, pixel_scale_arcsec=0.6)
    assert "sends invvar and maskbits for pixels up to 0.5 arcsec only" in checked(unasked)


# ------------------------------------------------------------------------ not refused yet: see the report


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("http.pause_s", False),  # YAML's no: no pause, and the survey's administrator writes to us
        ("http.attempts", True),
        ("http.connections", True),
        ("http.backoff_s", False),
    ],
)
def test_fault_21_yes_and_no_are_no_numbers(unasked, path, value):
    change(unasked, f"{SKY}.{path}", value)
    said = refused(unasked, "check")
    assert "surveys.sky.http" in said
    assert path.removeprefix("http.") in said


def test_fault_21_for_ever_is_no_number_of_seconds(unasked):
    change(unasked, f"{SKY}.http.pause_s", float("inf"))
    assert "surveys.sky.http.pause_s: input should be " in refused(unasked, "check")


@pytest.mark.parametrize("url", ["www.legacysurvey.org/viewer", "ftp://a/b", "http://", "http:/a", "file:///etc", ""])
def test_fault_21_an_address_that_is_none(unasked, url):
    unasked.configure(url=url)
    said = refused(unasked, "check")
    assert "surveys.sky.url" in said
    assert "http" in said.split("surveys.sky.url", 1)[1]


@pytest.mark.parametrize("contact", ["Zoë <zoe@example.org>", "a\nb"])
def test_fault_21_a_contact_that_no_header_can_hold(unasked, contact):
    unasked.configure(top={"contact": contact})
    assert "contact: " in refused(unasked, "check")


def test_fault_21_a_simulated_survey_cannot_stand_in(unasked):
    unasked.configure(fallback="twin")
    assert "surveys.sky.fallback: " in refused(unasked, "check")


def test_fault_21_a_survey_of_another_sort_cannot_stand_in(unasked):
    unasked.configure(
        top={"surveys": unasked.surveys(sky={"kind": "legacy", "fallback": "radio"}, radio={"kind": "first"})}
    )
    assert "surveys.sky.fallback: " in refused(unasked, "check")


@pytest.mark.parametrize("key", ["probe_ra_deg", "probe_dec_deg"])
def test_fault_21_a_probe_that_is_nowhere(unasked, key):
    unasked.configure(**{key: 400})
    assert f"surveys.sky.{key}: input should be less than" in refused(unasked, "check")


def test_fault_21_a_footprint_is_looked_for_before_any_job(unasked):
    unasked.configure(footprint=str(unasked.folder / "nowhere.fits"))
    assert "nowhere.fits cannot be read" in refused(unasked, "check")


def test_fault_21_the_place_of_a_mistake_is_a_key_of_the_file(unasked):
    unasked.configure(bands="rgz")
    assert "surveys.sky.legacy" not in refused(unasked, "check")


def test_fault_21_the_users_home(bench, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    bench.configure(top={"cache": "~/home_cache"})
    assert bench.fetch() == "4 ok"
    assert not (tmp_path / "~").exists()
