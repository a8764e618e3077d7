"""`alpha-pulse config`: what is set, from where, and what is wrong; never a secret."""

import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from alpha_pulse.cli.main import make_app
from alpha_pulse.contracts.config import Config, load_config
from alpha_pulse.contracts.errors import ConfigError

FILE = """\
namespace = "one"

[kafka]
bootstrap = "kafka:9092"
security_protocol = "SASL_PLAINTEXT"
sasl_username = "writer"

[clickhouse]
url = "http://writer:canary-url@clickhouse:8123"
"""
SECRETS = {"ALPHA_PULSE_KAFKA_SASL_PASSWORD": "canary-password"}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    path = tmp_path / "alpha-pulse.toml"
    path.write_text(FILE)
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(make_app(), ["config", *arguments])


def test_what_is_shown_can_be_loaded_again(file: Path) -> None:
    shown = run("show", "--config", str(file)).stdout
    document = tomllib.loads(shown)
    assert document["kafka"]["bootstrap"] == "kafka:9092"
    assert document["producer"]["symbols"] == list(Config().producer.symbols)
    again = file.with_name("again.toml")
    again.write_text(shown)
    loaded = load_config(again, {})
    assert loaded.sink == Config().sink
    assert loaded.kafka.sasl_password == ""
    assert "***" not in loaded.clickhouse.url


def test_every_setting_says_where_it_comes_from(file: Path) -> None:
    lines = run("show", "--config", str(file)).stdout.splitlines()
    assert f'bootstrap = "kafka:9092"  # {file}:4' in lines
    assert '# sasl_password = "***"  # ALPHA_PULSE_KAFKA_SASL_PASSWORD' in lines
    assert "batch_rows_max = 50000  # default" in lines
    changed = run("show", "--config", str(file), "--changed").stdout.splitlines()
    assert not any(line.endswith("# default") for line in changed)
    assert f'namespace = "one"  # {file}:1' in changed


@pytest.mark.parametrize("arguments", [["show"], ["show", "--json"], ["show", "--changed"]])
def test_no_secret_is_ever_shown(file: Path, arguments: list[str]) -> None:
    output = run(*arguments, "--config", str(file)).output
    assert "***" in output
    assert "canary" not in output
    assert "writer:***@clickhouse" in output


def test_a_good_file_passes(file: Path) -> None:
    result = run("check", "--config", str(file))
    assert result.exit_code == 0
    assert "5 of them set" not in result.stdout
    assert "6 of them set" in result.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[kafka]\nsecurity_protocol = 'SASL_SSL'", "sasl_username with SASL, found none"),
        ("[kafka]\nsecurity_protocol = 'SSL'\ntls_ca_file = '/none.pem'", "readable PEM files"),
        ("[clickhouse]\nurl = 'ftp://x:canary@y'", "expected an address such as http"),
        ("[clickhouse]\ndatabase = 'a b'", "expected letters, digits and _"),
    ],
)
def test_what_a_role_would_refuse_at_its_start_is_found_before(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "a.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as refused:
        CliRunner().invoke(
            make_app(), ["config", "check", "--config", str(path)], catch_exceptions=False
        )
    assert "canary" not in str(refused.value)
