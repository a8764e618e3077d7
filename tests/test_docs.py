"""What the docs say exists, and what exists is in the docs."""

import re
import shlex
import subprocess
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from alpha_pulse.cli.main import make_app
from alpha_pulse.contracts.config import SHORT_NAMES, Config, SetupConfig
from alpha_pulse.contracts.config_sources import list_settings
from alpha_pulse.contracts.roles.metrics.metric import COMMON
from alpha_pulse.contracts.schema.json_schema import kind_table, topic_table
from alpha_pulse.contracts.topics import TOPICS
from alpha_pulse.processors.worker.metrics import METRICS as PROCESSOR_METRICS
from alpha_pulse.producers.metrics import METRICS as PRODUCER_METRICS
from alpha_pulse.sinks.metrics import METRICS as SINK_METRICS
from benchmarks.__main__ import NAMES
from benchmarks.table import BEGIN, END, table
from tests.faults.soak.plan import ROLES, SCENARIOS

ROOT = Path(__file__).parents[1]
METRICS = (*COMMON, *PRODUCER_METRICS, *PROCESSOR_METRICS, *SINK_METRICS)
PARTS = ("bucket", "sum", "count")
# Read before there are settings, or by tests alone.
NOT_SETTINGS = {
    "ALPHA_PULSE_CONFIG",
    "ALPHA_PULSE_DOCUMENT",
    "ALPHA_PULSE_FAULTS",
    "ALPHA_PULSE_RECORDINGS",
}
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)[^)]*\)")


def test_the_tables_of_topics_and_kinds_are_those_of_the_code() -> None:
    text = (ROOT / "docs/contracts.md").read_text()
    assert topic_table() in text
    assert kind_table() in text


def test_the_readmes_figures_are_those_of_the_runs_that_were_kept() -> None:
    assert f"{BEGIN}\n{table()}{END}" in (ROOT / "README.md").read_text()


def test_every_setting_is_documented_with_its_default() -> None:
    text = (ROOT / "docs/configuration.md").read_text()
    sections = dict(
        section.split("]\n", 1) for section in text.split("\n## [")[1:] if "]\n" in section
    )
    for item in fields(Config):
        value = getattr(Config(), item.name)
        if not is_dataclass(value):
            assert f"| `{item.name}` | `{value!r}` |" in text
            continue
        for inner in fields(value):
            default = getattr(value, inner.name)
            shown = list(default) if isinstance(default, tuple) else default
            assert f"| `{inner.name}` | `{shown!r}` |" in sections[item.name], inner.name


def test_every_command_is_documented() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    for command in make_app().registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__
        assert re.search(rf"`{name}`|alpha-pulse {name}", text), name
    for group in make_app().registered_groups:
        assert group.typer_instance is not None
        within = group.typer_instance.info.name
        for command in group.typer_instance.registered_commands:
            assert command.callback is not None
            name = command.name or command.callback.__name__
            assert re.search(rf"alpha-pulse\s{within}\s{name}\b", text), f"{within} {name}"


def command_lines() -> list[tuple[str, list[str]]]:
    """Every `alpha-pulse …` of the pages: in a block, or between backticks."""
    found = []
    for page in PAGES:
        text = page.read_text()
        blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
        lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
        lines += re.findall(r"`(alpha-pulse [^`]+)`", re.sub(r"\s+", " ", text))
        for line in lines:
            command = re.match(r"(?:\$ )?(?:[A-Z_]+=\S+ )*(?:\S*/)?alpha-pulse ([a-z-].*)", line)
            if command:
                found.append((page.name, shlex.split(command[1], comments=True)))
    return found


def test_every_command_line_of_the_docs_could_be_run() -> None:
    lines = command_lines()
    assert len(lines) > 30
    for page, words in lines:
        command: Any = typer.main.get_command(make_app())
        options = options_of(command)
        waiting = list(words)
        while waiting:
            word = waiting.pop(0).strip("[]")  # what may be left out stands in brackets
            if word.startswith("--"):
                name, _, value = word.partition("=")
                assert name in options, f"{page}: {word} of {command.name}"
                takes_next = not options[name].is_flag and not value
                if takes_next and waiting and not waiting[0].startswith(("--", "[--")):
                    waiting.pop(0)
            elif hasattr(command, "commands"):
                assert word in command.commands, f"{page}: {word} of {command.name}"
                command = command.commands[word]
                options |= options_of(command)
        assert not hasattr(command, "commands"), f"{page}: {words}"


def options_of(command: Any) -> dict[str, Any]:
    return {
        name: option for option in command.params for name in (*option.opts, *option.secondary_opts)
    }


def everywhere(pattern: str) -> dict[str, set[str]]:
    """What a pattern finds in each page."""
    return {page.name: set(re.findall(pattern, page.read_text())) for page in PAGES}


def test_every_topic_that_the_docs_name_exists() -> None:
    names = {topic.name for topic in TOPICS}
    for page, found in everywhere(r"\b((?:market|ingest)\.[\w.-]*\.v\d+)\b").items():
        assert found <= names, page


def test_every_metric_that_the_docs_name_exists() -> None:
    declared = {metric.name: metric.kind for metric in METRICS}
    parts = {f"{n}_{p}" for n, k in declared.items() if k == "histogram" for p in PARTS}
    # Databases, packages and users carry the same first word.
    known = {*declared, *parts}
    roles = r"alpha_pulse_(?:producer|processor|sink|event|ready|build)\w*|kafka_consumergroup\w+"
    others = {SetupConfig().writer_user, SetupConfig().reader_user, SetupConfig().migrator_user}
    for page, found in everywhere(rf"\b({roles})\b").items():
        assert found - others <= known, page


def test_every_variable_that_the_docs_name_exists() -> None:
    variables = {setting.variable for setting in list_settings(Config())}
    known = variables | set(SHORT_NAMES) | NOT_SETTINGS
    for page, found in everywhere(r"\b(ALPHA_PULSE_[A-Z0-9_]*[A-Z0-9])\b").items():
        assert {name.removesuffix("_FILE") for name in found} <= known, page


def test_every_setting_that_the_docs_name_exists() -> None:
    names = {f"[{setting.section}] {setting.name}" for setting in list_settings(Config())}
    sections = {setting.section for setting in list_settings(Config())} - {""}
    pattern = rf"(\[(?:{'|'.join(sorted(sections))})\] [a-z_]+)"
    for page, found in everywhere(pattern).items():
        assert found <= names, page


def test_every_warning_of_a_role_is_explained() -> None:
    text = (ROOT / "docs/operations.md").read_text()
    for role in ("producers", "processors", "sinks"):
        for path in (ROOT / role).rglob("*.py"):
            said = re.findall(r'log\.(?:warning|error)\(\s*"([\w.]+)"', path.read_text())
            assert not [event for event in said if f"`{event}`" not in text], path


def test_every_alert_says_what_to_do() -> None:
    rules = (ROOT / "grafana/provisioning/alerting/rules.yaml").read_text()
    section = (ROOT / "docs/operations.md").read_text().split("## What an alert means")[1]
    titles = re.findall(r"^\s+title: (.+)$", rules, re.M)
    assert len(titles) >= 4
    assert not [title for title in titles if f"| {title} |" not in section]


def test_every_proof_that_is_named_exists() -> None:
    text = (ROOT / "docs/proofs.md").read_text()
    scenarios = {*SCENARIOS, "terminate", *(f"kill {role}" for role in ROLES)}
    assert not set(re.findall(r"scenarios\[([^\]…]+)\]", text)) - scenarios
    assert not set(re.findall(r"make bench NAME=(\w+)", text)) - set(NAMES)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    for row in rows:
        files = [ROOT / "tests" / name for name in re.findall(r"`([\w/]*test_\w+\.py)`", row)]
        assert not [str(file) for file in files if not file.exists()]
        sources = "".join(file.read_text() for file in files)
        names = re.findall(r"`(test_\w+)`", row)
        assert not [name for name in names if f"def {name}(" not in sources], row


def test_every_rule_and_every_page_has_a_proof() -> None:
    text = (ROOT / "docs/proofs.md").read_text()
    rules = re.findall(r"^(\d+)\. ", (ROOT / "docs/semantics.md").read_text(), re.M)
    assert rules == [str(number) for number in range(1, len(rules) + 1)]
    assert re.findall(r"^\| (\d+) ", text, re.M) == rules
    linked = set(LINK.findall(text.split("## Pages")[1]))
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"proofs.md"}
    assert pages - linked == set()
    rows = [row for row in text.splitlines() if row.startswith("| ") and "| ---" not in row]
    assert not [row for row in rows if len(row.rsplit("|", 2)[1].strip()) < 5]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), target


def test_no_vague_names_and_no_traces_of_a_machine() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    vague = {"utils", "util", "common", "helpers", "helper", "misc"}
    assert not [name for name in tracked if vague & set(Path(name).with_suffix("").parts)]
    assert "uv.lock" not in tracked
    for name in tracked:
        path = ROOT / name
        if name == ".ci/run" or path == Path(__file__) or not path.is_file():
            continue
        text = path.read_text(errors="replace")
        for trace in ("../shared", "/root/", "/home/"):
            assert trace not in text, f"{trace} in {name}"
        if name.startswith("requirements/"):
            assert "://" not in text, name
