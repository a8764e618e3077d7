"""Settings: file, environment, clear errors, no secret shown."""

from dataclasses import replace
from pathlib import Path

import pytest

from alpha_pulse.contracts.config import (
    SHORT_NAMES,
    Config,
    config_environment,
    load_config,
    redacted,
)
from alpha_pulse.contracts.errors import ConfigError

FILE = """
namespace = "one"

[kafka]
bootstrap = "kafka:9092"

[producer]
symbols = ["BTC/USDT", "ETH/USDT"]
heartbeat_grace_s = 3
"""


def written(path: Path, text: str) -> Path:
    file = path / "alpha-pulse.toml"
    file.write_text(text)
    return file


def test_the_environment_goes_over_the_file_and_the_file_over_the_defaults(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, FILE), {"ALPHA_PULSE_KAFKA": "other:1"})
    assert config.kafka.bootstrap == "other:1"
    assert config.producer.symbols == ("BTC/USDT", "ETH/USDT")
    assert config.producer.heartbeat_grace_s == 3.0
    assert config.sink == Config().sink
    assert config.named("sinks") == "one.sinks"
    assert config.database == "one_alpha_pulse"


def test_every_setting_survives_the_way_through_the_environment() -> None:
    config = load_config(None, {"ALPHA_PULSE_PRODUCER_SYMBOLS": "A/B, C/D"})
    config = replace(config, namespace="x", sink=replace(config.sink, batch_age_s_max=0.25))
    assert load_config(None, config_environment(config)) == config


def test_a_child_process_is_not_swayed_by_what_it_inherits() -> None:
    inherited = dict.fromkeys(SHORT_NAMES, "inherited")
    config = load_config(None, {"ALPHA_PULSE_EXCHANGE_URL": "http://127.0.0.1:1"})
    assert load_config(None, {**inherited, **config_environment(config)}) == config


@pytest.mark.parametrize("variable", sorted(SHORT_NAMES))
def test_a_short_name_sets_its_setting(variable: str) -> None:
    section, name = SHORT_NAMES[variable]
    config = load_config(None, {variable: "value"})
    assert getattr(getattr(config, section) if section else config, name) == "value"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[kafka]\nbootstrap = 'a'\nbotstrap = 'b'\n", r"'botstrap' at .*:3; allowed: bootstrap"),
        ("a = 1\nnamespace = 'x'", r"the top level, found 'a' at .*:1; allowed: namespace"),
        ("[nothing]\nx = 1", r"found 'nothing' at .*:1"),
        ("[sink]\nbatch_rows_max = 'many'", r"\[sink\].*batch_rows_max"),
        ("[kafka]\nsecurity_protocol = 'TLS'", r"security_protocol"),
        ("kafka = 3", r"expected a table \[kafka\]"),
        ("x = ", "expected TOML"),
        ("[kafka]\nbotstrap = 'b'", r"did you mean bootstrap\?"),
        ("\n[sink]\n\nbatch_rows_max = 'many'", r"\[sink\] batch_rows_max at .*:4: .*int"),
        ("[sink]\nbatch_rows_max = 0", r"batch_rows_max at .*:2: .*>= 1"),
        ("[sink]\nbatch_age_s_max = -1", r"batch_age_s_max at .*:2: .*>= 0"),
        ("[sink]\ndead_letter_ratio_max = 2", r"dead_letter_ratio_max at .*:2: .*<= 1"),
        ("[metrics]\nsink_port = 70000", r"sink_port at .*:2: .*<= 65535"),
        ("kafka.security_protocol = 'TLS'", r"security_protocol at .*:1: allowed: PLAINTEXT, SSL"),
        ("kafka = {security_protocol = 'TLS'}", r"security_protocol at .*:1: "),
        ("[producer]\nsymbols = ['BTC/USDT', 'x; DROP']", r"BASE|a symbol such as .*toml:2"),
        ("[producer]\nexchange = '../x'", r"expected an exchange name .*toml:2"),
        ("[producer]\nshard_index = 2\nshard_count = 2", r"from 0 to 1, .* found 2 .*toml:2"),
        ("namespace = 'a b'", r"in namespace, .* found 'a b' .*toml:1"),
    ],
)
def test_a_bad_file_is_an_error_that_says_where(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(written(tmp_path, text), {})


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    text = "nothing = 1\n[kafka]\nbotstrap = 'b'\n[sink]\nbatch_rows_max = 'many'\n"
    with pytest.raises(ConfigError) as refused:
        load_config(written(tmp_path, text), {"ALPHA_PULSE_SINK_BATCH_BYTES_MAX": "big"})
    assert len(str(refused.value).splitlines()) == 4


def test_an_allowed_value_is_named_beside_a_bad_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config(written(tmp_path, "[producer]\nclock = 'wall'"), {})
    assert "exchange, event" in str(refused.value)


def test_a_bad_secret_is_named_but_not_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sasl_password") as refused:
        load_config(written(tmp_path, "[kafka]\nsasl_password = ['canary']"), {})
    assert "canary" not in str(refused.value)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected a configuration file at"):
        load_config(tmp_path / "none.toml", {})


def test_a_bad_variable_is_named() -> None:
    with pytest.raises(ConfigError, match="ALPHA_PULSE_SINK_BATCH_ROWS_MAX"):
        load_config(None, {"ALPHA_PULSE_SINK_BATCH_ROWS_MAX": "many"})


def test_a_secret_comes_from_a_file_and_is_never_shown(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("canary-secret\n")
    config = load_config(None, {"ALPHA_PULSE_KAFKA_SASL_PASSWORD_FILE": str(tmp_path / "password")})
    assert config.kafka.sasl_password == "canary-secret"
    assert "canary" not in repr(config)
    assert redacted(config)["kafka"]["sasl_password"] == "***"
    assert "canary" not in str(redacted(config))


def test_a_secret_file_that_is_missing_is_an_error() -> None:
    with pytest.raises(ConfigError, match="SASL_PASSWORD_FILE"):
        load_config(None, {"ALPHA_PULSE_KAFKA_SASL_PASSWORD_FILE": "/nowhere/at/all"})
