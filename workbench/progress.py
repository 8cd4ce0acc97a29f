"""Progress of long work: a bar on a terminal, a plain line now and then in a pipe or a log."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def bar(over: Iterable[Any] | None = None, *, name: str, show: bool = True, **options: Any) -> tqdm:
    """A tqdm bar called `name` over an iterable (or with `total=` and `update()`), in batches, with the time left."""
    live = sys.stderr.isatty()
    pace = {} if live else {"mininterval": 15.0, "maxinterval": 60.0, "ascii": True, "ncols": 80}
    return tqdm(over, desc=name, unit="batch", disable=not show, leave=live, **pace, **options)
