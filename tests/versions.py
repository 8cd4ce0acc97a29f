"""What held with other versions: runs tests against the packages of the environment that starts it, and keeps the
counts as a row of docs/versions.md.

    python3.12 -m venv other
    other/bin/pip install 'WHEEL[test]' torch==2.12.1 transformers==5.20.2
    other/bin/python -P tests/versions.py

Without `-P` Python puts the checkout before the installed wheel. `--tests core` takes the third that meets a model most
closely; `--junit FILE` enters a run that was made with pytest's own `--junitxml`.
"""

from __future__ import annotations

import argparse
import platform
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "versions.md"
BEGIN, END = "<!-- runs: begin -->", "<!-- runs: end -->"
HEAD = ("Python", "torch", "transformers", "beside them", "tests", "passed", "failed", "skipped", "date")
BESIDE = ("peft", "huggingface_hub", "transformer-lens", "nnsight", "beartype")

# Sets of the quick suite's files, each with those before it, by what a version can break: the forward and its hooks,
# loading, adapters, encoding, generation, training, and the files that are written.
SETS = {
    "core": "contract_hf load engine encode edits positions stream capturing capture_resume streaming sweep "
    "sweep_keeps generate interventions interventions_refused training stacked_adapters adapter_files "
    "features vision_inputs token_log_probs",
    "more": "hooked_run hooked_edits masks joints static_decode decoding adapters_rows processors sweep_resume "
    "planner store store_writing store_reading store_merge store_export results directions transfer",
    "most": "contract_lens contract_nns points site prompt selftest kernels accumulate slab spot vision_tower "
    "capture_writing capture_answers capture_answers_stopped streaming_runs units store_refusals "
    "store_golden store_verify store_repair writing proof answering local_judge read_out scoring "
    "training_vision training_continued lora_factors pca exchange erase probe frames cli reporting "
    "reporting_sentences reporting_figures organism_base organism_world pitfalls",
}


def files(tests: str) -> list[str]:
    """The test files of a set: its own, and those of the sets before it."""
    taken = list(SETS)[: list(SETS).index(tests) + 1]
    return [f"tests/test_{name}.py" for one in taken for name in SETS[one].split()]


def versions() -> tuple[str, str, str, str]:
    """Python, torch, transformers, and what stands beside them, of this environment."""
    installed = {name: _version(name) for name in BESIDE}
    there = [f"{name} {version}" for name, version in installed.items() if version]
    absent = [name for name, version in installed.items() if not version]
    beside = ", ".join(there) + (f"; without {', '.join(absent)}" if absent else "")
    return platform.python_version(), _version("torch") or "-", _version("transformers") or "-", beside


def row(environment: Sequence[str], tests: str, junit: Path) -> tuple[str, ...]:
    """A row of the table: an environment, and the counts of the results file that pytest wrote in it. Raises
    ValueError where no test ran."""
    suites = list(ElementTree.parse(junit).iter("testsuite"))
    ran, failures, errors, skipped = (
        sum(int(suite.attrib[name]) for suite in suites) for name in ("tests", "failures", "errors", "skipped")
    )
    if not ran:
        raise ValueError(f"{junit} holds no test: expected the results of a run, written by pytest --junitxml.")
    failed = failures + errors
    day = suites[0].attrib["timestamp"][:10]
    return (*environment, tests, str(ran - failed - skipped), str(failed), str(skipped), day)


def rows_of(page: str) -> list[tuple[str, ...]]:
    """The runs that the page tells of."""
    lines = page.split(BEGIN)[1].split(END)[0].strip().splitlines()[2:]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]


def page_with(page: str, new: Iterable[tuple[str, ...]]) -> str:
    """The page with these runs in place of older ones of the same versions, sorted by version."""
    kept = {run[:5]: run for run in [*rows_of(page), *new]}
    ordered = sorted(kept.values(), key=lambda run: [_parts(version) for version in run[:3]] + [len(run[3])])
    table = [HEAD, ("---",) * len(HEAD), *ordered]
    head, rest = page.split(BEGIN)
    drawn = "\n".join(f"| {' | '.join(cells)} |" for cells in table)
    return f"{head}{BEGIN}\n{drawn}\n{END}{rest.split(END)[1]}"


def main(arguments: Sequence[str] | None = None) -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--tests", choices=SETS, default="most")
    asked.add_argument("--junit", type=Path, help="results of a run that was made before")
    given = asked.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        junit, code = given.junit or Path(folder) / "results.xml", 0
        if given.junit is None:
            plain = [] if _version("beartype") else ["-o", "addopts=-q"]  # its import hook is named in pyproject.toml
            command = [sys.executable, "-P", "-m", "pytest", *files(given.tests), *plain, f"--junitxml={junit}"]
            code = subprocess.run(command, cwd=ROOT).returncode
        PAGE.write_text(page_with(PAGE.read_text(), [row(versions(), given.tests, junit)]))
    return code


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _parts(version: str) -> list[int]:
    return [int(part) for part in version.split("+")[0].split(".") if part.isdigit()]


if __name__ == "__main__":
    sys.exit(main())
