"""seeded: what torch draws inside follows from a text, and from nothing that was drawn before."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(text: str, device: torch.device) -> Iterator[None]:
    """While the body runs, torch draws from the sha256 of `text`, on the CPU and on `device`; afterwards it goes on as
    if nothing had been drawn."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
