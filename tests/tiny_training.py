"""A tiny base in a folder, rows to train on, and what an adapter folder holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from conftest import chat
from safetensors.torch import load_file
from tiny_models import llama

from hooks.site import Site
from workbench.subspace.directions import Directions

# Rows of different lengths, so that batches are padded.
ANSWERS = ["yes", "no", "yes", "end", "e"]
ROWS = [chat(f"row{n}", "question " * (1 + n % 3), response=answer) for n, answer in enumerate(ANSWERS)]
SETTINGS = dict(rank=2, steps=4, batch_size=2, learning_rate=1e-2)


def saved_base(folder: Path) -> Path:
    for part in llama()[:2]:
        part.save_pretrained(folder)
    return folder


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def same(one: Path, other: Path) -> bool:
    """Bit for bit."""
    a, b = tensors(one), tensors(other)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def direction(layers=(0, 1, 2), seed: int = 5, origin: bool = False) -> Directions:
    drawn = np.random.default_rng(seed)
    sites = [Site(layer) for layer in layers]
    vectors = drawn.normal(size=(len(sites), 32))
    return Directions.of(sites, vectors, origin=drawn.normal(size=vectors.shape) if origin else None)
