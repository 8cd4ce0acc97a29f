"""One line a family: which checks of the zoo it passes, and why not. `python tests/zoo_report.py [KIND ...]
[--only NAME ...] [--json FILE]`; kinds: causal, image-text, vision, image-class."""

from __future__ import annotations

import argparse
import json
import logging
import signal
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import zoo
from zoo_rows import Row, measured

SECONDS = 60  # for one family


def _too_long(*_: Any) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def rows(kinds: list[str], only: list[str]) -> list[Row]:
    found = []
    signal.signal(signal.SIGALRM, _too_long)
    for kind in kinds:
        for name in zoo.families(kind):
            if only and name not in only:
                continue
            signal.alarm(SECONDS)
            started = time.monotonic()
            row = measured(kind, name)
            signal.alarm(0)
            found.append(row)
            print(f"{row}  {time.monotonic() - started:.1f} s", flush=True)
    return found


def totals(found: list[Row]) -> str:
    lines = []
    for kind in dict.fromkeys(row.kind for row in found):
        built = [row for row in found if row.kind == kind and row.built]
        passed = Counter(check for row in built for check, (good, _) in row.results.items() if good)
        tried = Counter(check for row in built for check in row.results)
        counts = ", ".join(f"{check} {passed[check]} of {tried[check]}" for check in tried)
        lines.append(f"{kind}: {sum(row.kind == kind for row in found)} classes, {len(built)} built; {counts}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", default=[])
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    started = time.monotonic()
    found = rows(options.kinds if options.kinds and not options.all else list(zoo.MAPPINGS), options.only)
    print(totals(found), f"\n{time.monotonic() - started:.0f} s")
    if options.json:
        options.json.write_text(json.dumps([row.as_json() for row in found], indent=1))


if __name__ == "__main__":
    main()
