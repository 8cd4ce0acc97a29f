"""The performance table of docs/performance.md, made from the numbers that are kept in tests/bench/results/.

python tests/bench/table.py            # writes it between the page's two marks
python tests/bench/table.py --check    # exits with 1 when the page says something else
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from clocks import ROOT
from lines import cells
from run import BENCHMARKS, RESULTS

BEGIN, END = "<!-- performance: begin -->", "<!-- performance: end -->"
HEADINGS = ("", "measured", "against", "ratio [95 % interval]", "gate", "goal", "verdict")


def main(arguments: Sequence[str]) -> int:
    page = ROOT / "docs" / "performance.md"
    text = page.read_text()
    new = replaced(text, written(documents(RESULTS)))
    if "--check" in arguments:
        return int(new != text)
    page.write_text(new)
    return 0


def documents(folder: Path) -> list[dict[str, Any]]:
    """The kept JSON files, CPU before GPU, in the order of the benchmarks."""
    found = [(path.stem.rpartition("-"), path) for path in folder.glob("*-?pu.json")]
    order = {name: at for at, name in enumerate(BENCHMARKS)}
    found.sort(key=lambda one: (one[0][2], order[one[0][0]]))
    return [json.loads(path.read_text()) for _, path in found]


def written(found: Iterable[Mapping[str, Any]]) -> str:
    """One table a device of the lines that have a gate, each with the versions and days of its runs, and the commands
    that give its numbers again."""
    by_device: dict[str, list[Mapping[str, Any]]] = {}
    for document in found:
        by_device.setdefault(document["device"], []).append(document)
    return "\n".join(_of_device(device, runs) for device, runs in by_device.items())


def _of_device(device: str, runs: Sequence[Mapping[str, Any]]) -> str:
    days = sorted({run["date"] for run in runs})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    versions = ", ".join(f"{name} {'/'.join(_each(runs, name))}" for name in ("torch", "transformers"))
    commands = "; ".join(f"`{run['command']}`" for run in runs)
    measured = [line for run in runs for line in run["lines"] if line["verdict"] != "not installed"]
    rows = [_row(line) for line in measured if line["gate"] is not None]
    more = f" {len(measured) - len(rows)} more lines, without a gate, are in tests/bench/results/."
    head = [f"| {' | '.join(HEADINGS)} |", f"|{'---|' * len(HEADINGS)}"]
    notes = dict.fromkeys(f"{line['id']}: {line['note']}" for run in runs for line in run["lines"] if line["note"])
    below = [f"Commands: {commands}.{more}", *([f"Notes: {'; '.join(notes)}."] if notes else [])]
    return "\n".join([f"On {device}, {when}, {versions}:", "", *head, *rows, "", *below, ""])


def _each(runs: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    return sorted({str(run[name]) for run in runs})


def _row(line: Mapping[str, Any]) -> str:
    identifier, what, peer, _, _, ratio, interval, _, gate, goal, verdict = cells(line)
    shown = [identifier, what, peer, " ".join(part for part in (ratio, interval) if part), gate, goal, verdict]
    return f"| {' | '.join(part.replace('|', chr(92) + '|') for part in shown)} |"


def replaced(page: str, table: str) -> str:
    """The page with this between its marks. Raises ValueError when it does not have each of them once, in order."""
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise ValueError(f"docs/performance.md: expected the line {BEGIN!r} once, and behind it {END!r} once.")
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n{table}{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
