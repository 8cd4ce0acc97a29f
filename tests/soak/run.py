"""Every way to lose, to damage or to forge what was stored, tried by the thousand: what `make soak` runs.

    python tests/soak/run.py                     # whole, two parts at a time; writes tests/bench/results/soak.json
    python tests/soak/run.py --quick             # a few of each, about a minute; writes nothing
    python tests/soak/run.py --only races kills --quick --json /tmp/soak.json

A part is a module beside this one with `run(n, scratch, seed) -> counts`. It exits with 1 when anything that must not
happen did, or when fewer trials were made than declared below, with 3 when a part broke.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # for a part that is run from here, as for one that a test runs

from counts import KEYS, added, bad  # noqa: E402

RESULT = HERE.parent / "bench" / "results" / "soak.json"
AT_ONCE, BROKEN = 2, 3


@dataclass(frozen=True)
class Part:
    """How many trials of one part: in a whole soak and in a quick one."""

    whole: int
    quick: int


# The longest first, so that the last one to end does not run alone.
PARTS = {
    "pipeline_kills": Part(300, 7),
    "machine": Part(500, 10),
    "kills": Part(2400, 40),
    "power": Part(2200, 100),
    "flips": Part(24000, 400),
    "hostile": Part(1000, 60),
    "races": Part(400, 10),
}
# What a whole soak must have tried: part, count, at least.
LEAST = [
    ("kills", "kills", 900),
    ("pipeline_kills", "kills", 100),
    ("power", "prefixes", 20),
    ("power", "torn", 20),
    ("power", "power_cuts", 2000),
    ("flips", "flips", 10_000),
    ("hostile", "hostile", 60),
    ("races", "races", 200),
]


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parser().parse_args(arguments)
    if asked.part:
        return one_part(asked.part, asked.n, asked.seed, asked.json)
    chosen = {name: part.quick if asked.quick else part.whole for name, part in PARTS.items()}
    chosen = {name: asked.n or n for name, n in chosen.items() if name in (asked.only or PARTS)}
    start = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as running:
        found = dict(running.map(lambda name: (name, in_a_process(name, chosen[name], asked.seed)), chosen))
    broken = [name for name, one in found.items() if one is None]
    document = described(chosen, {name: one for name, one in found.items() if one}, asked.seed)
    document["seconds"] = round(time.monotonic() - start, 1)
    whole = not asked.quick and not asked.only and not asked.n
    faults = short(document) if whole else []
    for line in table(document, broken, faults):
        print(line)
    to = asked.json or (RESULT if whole and not broken else None)
    if to is not None:
        to.write_text(json.dumps(document, indent=1) + "\n")
    return BROKEN if broken else int(bool(bad(document) or faults))


def one_part(name: str, n: int, seed: int, to: Path) -> int:
    """Runs a part in this process, and writes what it counted."""
    with tempfile.TemporaryDirectory(prefix=f"soak-{name}-") as scratch:
        counts = importlib.import_module(name).run(n, Path(scratch), seed)
    added(counts)  # refuses a key that nobody looks at
    to.write_text(json.dumps(counts))
    return 0


def in_a_process(name: str, n: int, seed: int) -> dict[str, Any] | None:
    """What a part counted, and its seconds; None where it broke. What it says on the error stream goes through."""
    start = time.monotonic()
    print(f"{name} ({n}) ...", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        to = Path(folder) / "counts.json"
        asked = ["--part", name, "--n", str(n), "--seed", str(seed), "--json", str(to)]
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run([sys.executable, __file__, *asked], env=one_thread)
        counts = json.loads(to.read_text()) if done.returncode == 0 else None
    seconds = round(time.monotonic() - start, 1)
    print(f"{name}: {'BROKEN' if counts is None else counts}, {seconds} s", file=sys.stderr, flush=True)
    return None if counts is None else {"n": n, "seconds": seconds, "counts": counts}


def described(chosen: Mapping[str, int], found: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The result as it is kept: the sums, then what each part did, where and with what."""
    import h5py
    import torch

    return {
        **added(*(one["counts"] for one in found.values())),
        "seconds": 0.0,
        "seed": seed,
        "parts": {name: found.get(name, "broken") for name in chosen},
        "python": platform.python_version(),
        "torch": torch.__version__,
        "h5py": h5py.__version__,
        "hdf5": h5py.version.hdf5_version,
        "machine": machine(),
    }


def machine() -> str:
    """In words: processor, cores, system, and the file system that was written to."""
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        named = [line for line in Path("/proc/cpuinfo").read_text().split("\n") if line.startswith("model name")]
        model = named[0].split(":", 1)[1].strip() if named else model
    return f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, {file_system()}"


def file_system() -> str:
    """The kind that the scratch folder lies on, as the kernel names it."""
    here, mounts = str(Path(tempfile.gettempdir()).resolve()), Path("/proc/mounts")
    lines = [line.split()[:3] for line in mounts.read_text().split("\n") if line] if mounts.exists() else []
    above = [(len(at), kind) for _, at, kind in lines if here == at or here.startswith(at.rstrip("/") + "/")]
    return max(above, default=(0, "unknown file system"))[1]


def short(document: Mapping[str, Any]) -> list[str]:
    """Where a whole soak tried less than it must."""
    counts = {name: part["counts"] for name, part in document["parts"].items() if part != "broken"}
    found = [(part, key, counts.get(part, {}).get(key, 0), least) for part, key, least in LEAST]
    return [f"{part}: {n} {key}, expected at least {least}" for part, key, n, least in found if n < least]


def table(document: Mapping[str, Any], broken: Sequence[str], faults: Sequence[str]) -> list[str]:
    """What a person reads at the end."""
    counts = [f"{key:>15} {document[key]:>8}{'   <- must be 0' if key in bad(document) else ''}" for key in KEYS]
    return [*counts, f"{'seconds':>15} {document['seconds']:>8}", *faults, *(f"{name} broke" for name in broken)]


def parser() -> argparse.ArgumentParser:
    asking = argparse.ArgumentParser("python tests/soak/run.py", description=(__doc__ or "").split("\n")[0])
    asking.add_argument("--quick", action="store_true", help="a few trials of each part")
    asking.add_argument("--json", type=Path, metavar="FILE", help=f"where to write (whole runs: {RESULT.name})")
    asking.add_argument("--only", nargs="+", choices=list(PARTS), metavar="PART", help=f"some of {', '.join(PARTS)}")
    asking.add_argument("--seed", type=int, default=0)
    asking.add_argument("--n", type=int, help="trials a part, other than declared")
    asking.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    return asking


if __name__ == "__main__":
    sys.exit(main())
