import contextlib
import copy
import difflib
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from galgaze.config import Config, check_config, config_json_schema, load_config
from galgaze.errors import ConfigError

ROOT = Path(__file__).parents[1]
DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text())


def refused(change) -> str:
    config = copy.deepcopy(DEFAULT)
    change(config)
    with pytest.raises(ConfigError) as caught:
        check_config(config)
    return str(caught.value)


def test_the_default_configuration_is_good_and_every_key_of_it_commented():
    load_config(ROOT / "config.yaml")


def test_the_schema_in_the_repository_is_the_models():
    path = ROOT / "workflow/config.schema.json"
    expected = json.dumps(config_json_schema(), indent=1) + "\n"
    differences = list(difflib.unified_diff(path.read_text().splitlines(), expected.splitlines(), lineterm="", n=0))
    assert not differences, "run: galgaze schema > workflow/config.schema.json"


def test_every_key_has_a_description():
    def check(name: str, section: dict) -> None:
        for key, value in section.get("properties", {}).items():
            refers = "$ref" in value or "discriminator" in value or key in ("kind", "surveys", "fields", "tasks")
            nested = any("$ref" in option for option in value.get("anyOf", []))
            assert value.get("description") or refers or nested or key in ("http", "columns", "network"), (name, key)

    schema = config_json_schema()
    for name, section in {"Config": schema, **schema["$defs"]}.items():
        check(name, section)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(shardsize=3), "shardsize: unknown key (did you mean 'shard_size'?)"),
        (lambda c: c["surveys"]["legacy"].update(layr="x"), "surveys.legacy.layr: unknown key (did you mean 'layer'?)"),
        (lambda c: c["surveys"]["legacy"]["http"].update(atempts=1), "surveys.legacy.http.atempts: unknown key"),
        (
            lambda c: c["tasks"]["optical_morphology"]["preparation"].update(size=1),
            "tasks.optical_morphology.preparation.size: unknown key (did you mean 'size_px'?)",
        ),
        (lambda c: c["fields"]["demo_radio"]["simulated"].pop("count"), "demo_radio.simulated.count: this key is"),
        (lambda c: c["tasks"]["radio_fr"].update(survey="simulated_frist"), "(did you mean 'simulated_first'?)"),
        (lambda c: c["tasks"]["radio_fr"].update(bars={}), "tasks.radio_fr.bars: radio_fr has no class of barred"),
        (
            lambda c: c["tasks"]["radio_fr"]["model"].update(train={"field": "demo_radio"}),
            "exactly one of weights and train",
        ),
        (
            lambda c: c["tasks"]["radio_fr"].update(model={"train": {"field": "demo_radio", "dataset": {
                "kind": "mirabest", "path": "p"}}}),
            "exactly one of field and dataset",
        ),
        (
            lambda c: c["tasks"]["radio_fr"].update(model={"train": {"field": "demo_radio", "network": {
                "architecture": "agcn"}}}),
            "tasks.radio_fr.model.train.network",
        ),
        (
            lambda c: c["tasks"]["radio_fr"].update(model={"weights": ["a", "a"]}),
            "an ensemble needs model files, each once",
        ),
        (lambda c: c.update(shard_size="no"), "shard_size: input should be a valid integer"),
        (lambda c: c.update(fields=None), "fields: input should be a valid dictionary"),
        (lambda c: c["fields"].update({"../up": {"simulated": None}}), "fields.../up"),
        (lambda c: c["surveys"]["first"].update(size_px=2000), "surveys.first.size_px"),
        (lambda c: c["surveys"]["legacy"].update(size_px=4000), "surveys.legacy.size_px"),
        (lambda c: c["fields"]["demo_radio"].update(tasks=["radio"]), "fields.demo_radio.tasks.0"),
        (lambda c: c["tasks"]["radio_fr"].update(preparation={"kind": "optical_composite"}), "does not fit"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_place(change, said):
    assert said in refused(change)


def test_all_problems_at_once():
    said = refused(lambda c: (c.update(a=1), c.update(b=2)))
    assert "a: unknown key" in said
    assert "b: unknown key" in said


def test_numbers_that_yaml_takes_for_text_are_numbers():
    config = copy.deepcopy(DEFAULT)
    config["tasks"]["radio_fr"]["model"] = {"train": {"field": "demo_radio", "learning_rate": yaml.safe_load("1e-3")}}
    assert check_config(config).tasks["radio_fr"].model.train.learning_rate == 1e-3


def test_resolved_configuration_reads_back_the_same():
    config = check_config(DEFAULT)
    assert check_config(json.loads(json.dumps(config.model_dump()))) == config


@pytest.mark.parametrize("text", ["", "just text", "- a\n- b", "a: [1", "\tx: 1"])
def test_files_that_are_no_configuration(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        load_config(path)


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=8), children, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(Config.model_fields)), junk)
def test_junk_is_refused_with_a_message_or_taken_never_a_crash(key, value):
    config = copy.deepcopy(DEFAULT) | {key: value}
    with contextlib.suppress(ConfigError):
        check_config(config)
