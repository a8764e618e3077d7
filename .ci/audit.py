"""`make audit`: the pinned versions against the database of known vulnerabilities (pip-audit).

Exit code 1 when there is a finding that SECURITY.md does not explain. Where the database can't be
asked it says so and ends with 0: nothing was found out, and nothing is claimed.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
TIMEOUT_S = 300
_NO_NETWORK = re.compile(r"(?i)connect|resol|timed out|timeout|unreachable|proxy|certificate")


def verdict(dependencies: list[dict[str, Any]], explained: set[str]) -> tuple[int, list[str]]:
    """Return the exit code and the lines to print for pip-audit's answer."""
    findings = [
        f"{one['name']} {one['version']}: {vulnerability['id']}, "
        f"fixed in {', '.join(vulnerability['fix_versions']) or 'no version yet'}"
        for one in dependencies
        for vulnerability in one.get("vulns", [])
        if not explained & {vulnerability["id"], *vulnerability.get("aliases", [])}
    ]
    skipped = [one["name"] for one in dependencies if "skip_reason" in one]
    audited = len(dependencies) - len(skipped)
    lines = list(dict.fromkeys(findings))
    if audited:
        lines.append(f"audit: {audited} packages, {len(lines)} findings that are not explained")
    if skipped:
        lines.append(
            f"audit: SKIPPED {len(skipped)} of {len(dependencies)} packages, the database does not "
            f"answer for them: {', '.join(skipped[:5])}{' …' if len(skipped) > 5 else ''}"
        )
    return (1 if findings else 0), lines


def ask(file: Path) -> list[dict[str, Any]]:
    """Return pip-audit's answer for one file of pinned versions.

    Raises: RuntimeError with its last words when it gave none.
    """
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes"]
    command += ["--format", "json", "--progress-spinner", "off", "-r", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    try:
        answer: list[dict[str, Any]] = json.loads(result.stdout)["dependencies"]
    except (json.JSONDecodeError, KeyError) as error:
        raise RuntimeError("".join(result.stderr.splitlines()[-1:])) from error
    return answer


def main() -> int:
    """Audit every file of requirements/; print and return the verdict."""
    text = (ROOT / "SECURITY.md").read_text()
    explained = set(re.findall(r"`((?:CVE|GHSA|PYSEC)-[\w-]+)`", text))
    packages: dict[tuple[str, str], dict[str, Any]] = {}
    for file in sorted(ROOT.glob("requirements/*.txt")):
        try:
            for one in ask(file):
                packages[one["name"], one.get("version", "")] = one
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            if not _NO_NETWORK.search(str(error)):
                print(f"audit: pip-audit failed on {file.name}: {error}")
                return 2
            print(f"audit: SKIPPED, the database of vulnerabilities can't be reached: {error}")
            return 0
    code, lines = verdict(list(packages.values()), explained)
    print("\n".join(lines))
    return code


if __name__ == "__main__":
    sys.exit(main())
