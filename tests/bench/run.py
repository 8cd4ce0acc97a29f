"""Every benchmark, each in a process of its own, and one table of what they found.

    python tests/bench/run.py --quick            # what `make bench` runs
    python tests/bench/run.py --quick --save     # and keeps the numbers in tests/bench/results/
    python tests/bench/run.py --only capture plan

It exits with the worst verdict: 3 a benchmark broke, 1 a gate is short, 2 too noisy to say, 0 all hold.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clocks import ROOT
from lines import table, worst
from measure import BROKEN

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
# Script: what it measures. A script that is not written yet is named, and skipped.
BENCHMARKS = {
    "capture": "B1",
    "capture_peers": "B2",
    "sweep": "B3, B4",
    "grid": "B5, B6",
    "generate_grid": "B7",
    "kernels": "B8",
    "decode": "B9",
    "store": "B10",
    "pooled": "B10",
    "stats": "B11",
    "plan": "B12",
    "workflow": "B13",
    "population": "B14",
    "layer_study": "B15",
}
# Those whose numbers depend on the device.
ON_GPU = [name for name in BENCHMARKS if name not in ("store", "pooled", "plan")]


def main(arguments: Sequence[str] | None = None) -> int:
    return measured(parser().parse_args(arguments))


def measured(asked: argparse.Namespace) -> int:
    if asked.tiny and asked.save:
        raise SystemExit("--tiny judges nothing: expected no --save with it.")
    chosen = asked.only or (ON_GPU if asked.device == "cuda" else list(BENCHMARKS))
    options = [*(["--quick"] if asked.quick else []), *(["--tiny"] if asked.tiny else []), "--device", asked.device]
    records, broken = [], []
    for name in chosen:
        if not (HERE / f"{name}.py").exists():
            print(f"{name} ({BENCHMARKS[name]}): not written yet", file=sys.stderr)
            continue
        print(f"{name} ({BENCHMARKS[name]}) ...", file=sys.stderr, flush=True)
        document = result_of(HERE / f"{name}.py", options)
        if document is None:
            broken.append(name)
            continue
        records += document["lines"]
        if asked.save:
            kept(document, asked.device)
    print(table(records))
    for name in broken:
        print(f"{name} ({BENCHMARKS[name]}) broke, or a result was wrong: its own words are above.")
    return BROKEN if broken else worst([record["verdict"] for record in records])


def kept(document: Mapping[str, Any], device: str) -> Path:
    """Writes a benchmark's JSON among the results; CPU and GPU have a file each."""
    RESULTS.mkdir(exist_ok=True)
    to = RESULTS / f"{document['benchmark']}-{'gpu' if device == 'cuda' else 'cpu'}.json"
    to.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return to


def result_of(script: Path, options: Sequence[str]) -> dict[str, Any] | None:
    """The JSON of one benchmark; None where it broke. What it says on the error stream goes through."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "lines.json"
        command = [sys.executable, str(script), *options, "--json", str(found)]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        return json.loads(found.read_text()) if found.exists() and done.returncode != BROKEN else None


def parser(script: str = "run", device: str = "cpu") -> argparse.ArgumentParser:
    asking = argparse.ArgumentParser(f"python tests/bench/{script}.py", description="Every benchmark, and one table.")
    asking.add_argument("--quick", action="store_true", help="sizes for one core and about a minute each")
    asking.add_argument("--device", choices=["cpu", "cuda"], default=device)
    asking.add_argument("--tiny", action="store_true", help="only shows that they run; judges nothing")
    asking.add_argument("--save", action="store_true", help="keep the numbers, one JSON a benchmark")
    asking.add_argument("--only", nargs="+", choices=list(BENCHMARKS), metavar="NAME", help="these benchmarks alone")
    return asking


if __name__ == "__main__":
    sys.exit(main())
