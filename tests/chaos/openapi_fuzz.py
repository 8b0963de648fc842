"""Fuzzing by the OpenAPI document with schemathesis: valid requests, checked answers, and invalid requests.

    make chaos CHAOS=openapi_fuzz

A real gateway on the embedded engine, models that compute next to nothing, every route. Checked of every answer: no
server error but the declared 503 and 504, a status, a content type and a body as documented. Prints totals as JSON, and
schemathesis's own words of each failure, with how to repeat it.

Runs with the gateway's environment; schemathesis is in one of its own, .venv-fuzz (`make .venv-fuzz`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from support.models import repository as test_repository
from support.paths import ROOT
from support.servers.gateway import server

SCHEMATHESIS = ROOT / ".venv-fuzz" / "bin" / "schemathesis"
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
# 503: a branch without weights, of which the test repository has many; 504: X-Request-Timeout: 1e-300.
CONFIG = """
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 503, 504]
"""


def command(folder: Path, url: str, cases: int, seconds: int, seed: int) -> list[str]:
    """`cases` for each operation, more while there is time."""
    (folder / "schemathesis.toml").write_text(CONFIG)
    return [
        str(SCHEMATHESIS), "--config-file", str(folder / "schemathesis.toml"), "run", f"{url}/openapi.json",
        "--phases", "examples,coverage,fuzzing", "--checks", CHECKS, "--max-examples", str(cases),
        "--max-time", str(seconds), "--seed", str(seed), "--request-timeout", "30", "--continue-on-failure",
        "--suppress-health-check", "all", "--generation-database", "none", "--no-color",
        "--report", "json", "--report-json-path", str(folder / "report.json"),
    ]  # fmt: skip


def run(cases: int, seconds: int, seed: int) -> int:
    names = (*test_repository.DETECTORS, *test_repository.DEPTH, *test_repository.OTHERS)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        repository = test_repository.build(folder / "models", names)
        settings = {"videos_folder": folder / "videos", "embedded_threads": 1, "max_jobs_waiting": 100}
        with server(repository, folder / "gateway.log", **settings) as (http, _):
            url = str(http.base_url).rstrip("/")
            done = subprocess.run(
                command(folder, url, cases, seconds, seed),
                cwd=folder, capture_output=True, text=True, timeout=seconds + 300, check=False,
            )  # fmt: skip
            http.get("/livez").raise_for_status()
        report = folder / "report.json"
        if not report.is_file():
            print(done.stdout[-4000:], done.stderr[-4000:], file=sys.stderr)
            return 2
        return said(json.loads(report.read_text()), done.stdout)


def said(report: dict[str, object], words: str) -> int:
    """Totals; the words only where something failed."""
    cases = report["test_cases"]
    assert isinstance(cases, dict)
    failures = report["failures"]
    rows = {
        "schemathesis": report["schemathesis_version"],
        "seed": str(report["seed"]),
        "seconds": round(float(str(report["running_time"])), 1),
        "operations": report["operations"],
        "cases": cases["generated"],
        "failures": cases["unique_failures"],
        "errors": cases["errored"],
    }
    print(json.dumps(rows, indent=1))
    if failures or report["errors"]:
        print(words[-20_000:])
        return 1
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", type=int, default=200, help="for each operation, at most")
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if not SCHEMATHESIS.is_file():
        print(f"{SCHEMATHESIS} isn't there; run: make .venv-fuzz", file=sys.stderr)
        return 2
    return run(given.cases, given.seconds, given.seed)


if __name__ == "__main__":
    sys.exit(main())
