"""What every benchmark script is built on. A script is

    from measure import Line, main, paired

    def lines(quick):
        assert ours() == peer()                                   # correctness before the clock starts
        ratio = paired(ours, peer, also={"another": other})       # >= 15 interleaved pairs (pairs.py)
        yield Line("B8", "add, d 2560", ratio, gate=5.0, goal=8.0, peer="eager")
        yield Line("B8", "add, d 2560", ratio.also["another"], peer="another")

    if __name__ == "__main__":
        main("kernels", lines)

and understands --quick, --device cpu|cuda, --tiny and --json FILE. It exits with 0 (every gate holds), 1 (a gate is
short), 2 (too noisy to say) or 3 (it broke, or a result was wrong).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from clocks import ROOT, SETTING, cpu_seconds, cuda_seconds, device_name, pin, wall_seconds
from lines import ABSENT, NOISY, PASS, REPORTED, SHORT, Line, table, worst
from pairs import Ratio, paired

__all__ = [
    "ABSENT",
    "NOISY",
    "PASS",
    "REPORTED",
    "SETTING",
    "SHORT",
    "Line",
    "Ratio",
    "commit",
    "cpu_seconds",
    "cuda_seconds",
    "main",
    "paired",
    "table",
    "wall_seconds",
]  # fmt: skip
BROKEN = 3


def main(name: str, lines: Callable[[bool], Iterable[Line]], arguments: Sequence[str] | None = None) -> None:
    """Measures the lines, prints their table, writes the JSON, and exits with the verdict."""
    sys.exit(measured(name, lines, sys.argv[1:] if arguments is None else arguments))


def measured(name: str, lines: Callable[[bool], Iterable[Line]], arguments: Sequence[str]) -> int:
    asked = _parser(name).parse_args(arguments)
    SETTING.device, SETTING.quick, SETTING.tiny = asked.device, asked.quick or asked.tiny, asked.tiny
    if asked.device == "cpu":
        pin()
    try:
        found = list(lines(SETTING.quick))
    except Exception:
        traceback.print_exc()
        return BROKEN
    if asked.json:
        asked.json.write_text(json.dumps(_document(name, asked, found), indent=1, ensure_ascii=False) + "\n")
    print(table([line.record() for line in found]))
    return worst([line.verdict for line in found])


def _parser(name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(f"python tests/bench/{name}.py")
    parser.add_argument("--quick", action="store_true", help="sizes for one core and about a minute")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--tiny", action="store_true", help="only shows that it runs; judges nothing")
    parser.add_argument("--json", type=Path, help="write the lines to this file")
    return parser


def _document(name: str, asked: argparse.Namespace, found: Sequence[Line]) -> dict[str, object]:
    """What the lines need to be read by: where, when, with which versions, and the command that gives them again."""
    options = [*(["--quick"] if asked.quick else []), *(["--tiny"] if asked.tiny else [])]
    options += ["--device", asked.device] if asked.device != "cpu" else []
    return {
        "benchmark": name,
        "device": device_name(),
        "date": datetime.now(UTC).date().isoformat(),
        "command": " ".join(["python", f"tests/bench/{name}.py", *options]),
        "commit": commit(),
        **{package: _version(package) for package in ("torch", "transformers")},
        "lines": [line.record() for line in found],
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit() -> str | None:
    """The checkout's commit, with a + when tracked files differ from it; None outside git."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None
