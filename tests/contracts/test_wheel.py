"""The contracts as a downstream user installs them: one wheel, with everything to read by."""

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from alpha_pulse.contracts.schema.json_schema import HERE, generated_files

CONTRACTS = Path(__file__).parents[2] / "contracts"
# What `pip install alpha-pulse-contracts[kafka]` brings, by import name; nothing else is needed.
ALLOWED = {"msgspec", "aiokafka", "cramjam", "async_timeout", "packaging", "typing_extensions"}
_LOOK = """
import sys, sysconfig, json
before = set(sys.modules)
import alpha_pulse.contracts.kafka.reader, alpha_pulse.contracts.newest
import alpha_pulse.contracts.schema.json_schema, alpha_pulse.contracts.schema.compatibility
site = sysconfig.get_path("purelib")
names = {
    name.split(".")[0]
    for name, module in list(sys.modules.items())
    if name not in before and (getattr(module, "__file__", None) or "").startswith(site)
}
roles = [name for name in sys.modules if name.startswith("alpha_pulse.contracts.roles")]
print(json.dumps([sorted(names), roles, alpha_pulse.contracts.schema.json_schema.__file__]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    build = "import sys, uv_build; uv_build.build_wheel(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-c", build, str(folder)],
        cwd=CONTRACTS,
        check=True,
        capture_output=True,
        env={"PATH": str(Path(sys.executable).parent)},
    )
    (path,) = folder.glob("*.whl")
    return zipfile.ZipFile(path)


def test_schemas_examples_and_the_asyncapi_document_are_in_the_wheel(
    wheel: zipfile.ZipFile,
) -> None:
    for path, text in generated_files().items():
        name = f"alpha_pulse/contracts/schema/{path.relative_to(HERE).as_posix()}"
        assert wheel.read(name).decode() == text, name
    assert "alpha_pulse/contracts/py.typed" in wheel.namelist()
    assert "alpha_pulse/__init__.py" not in wheel.namelist()


def test_the_extra_of_readers_brings_nothing_that_roles_alone_need(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    needs: dict[str, set[str]] = {}
    for line in wheel.read(name).decode().splitlines():
        if line.startswith("Requires-Dist: "):
            requirement, _, extra = line.removeprefix("Requires-Dist: ").partition("extra == ")
            package = re.match(r"[A-Za-z0-9-]+", requirement)
            assert package
            needs.setdefault(extra.strip("'\" "), set()).add(package[0])
    assert needs == {
        "": {"msgspec"},
        "kafka": {"aiokafka", "cramjam"},
        "roles": {"aiohttp", "prometheus-client", "structlog"},
    }


def test_a_reader_needs_what_the_kafka_extra_brings_and_no_more(
    wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    wheel.extractall(tmp_path)
    result = subprocess.run(
        [sys.executable, "-c", _LOOK],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    imported, roles, file = json.loads(result.stdout)
    assert Path(file).is_relative_to(tmp_path)
    assert {name for name in imported if not name.startswith("_")} <= ALLOWED
    assert roles == [], "what the roles share is no part of reading"
