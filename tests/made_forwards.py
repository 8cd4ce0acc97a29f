"""Forwards without a model: residuals of known rows, shown to an accumulator's keeps unit by unit."""

from __future__ import annotations

import numpy as np
import torch

from hooks.model import Where
from hooks.positions import Tokens
from hooks.site import Site

SITES = [Site(0), Site(3)]


def tokens_of(lengths, width=None, prompt_lengths=None) -> Tokens:
    """Right-padded prompts of these lengths; without a response unless `prompt_lengths` says where it begins."""
    width, lengths = width or max(lengths), torch.tensor(lengths)
    position = torch.where(torch.arange(width) < lengths[:, None], torch.arange(width), -1)
    p = lengths if prompt_lengths is None else torch.tensor(prompt_lengths)
    nothing = torch.zeros(len(lengths), width, dtype=torch.bool)
    return Tokens(position.clamp_min(0), position, p, p, lengths, nothing, torch.zeros_like(lengths))


def shown(keeps, resid, tokens) -> None:
    """One forward: the residual `resid[site]` passes each site's keep."""
    with torch.inference_mode():
        for site, keep in keeps.items():
            assert keep(resid[site], Where(site, tokens)) is None


def outlying(n, d, seed=0, spread=0.3) -> np.ndarray:
    """Rows with a slowly decaying spectrum, means of all sizes beside it, and two dimensions at 400 and -150."""
    rng = np.random.default_rng(seed)
    scale = (np.exp(-np.arange(d) / 20) + 0.05)[rng.permutation(d)]
    rows = rng.standard_normal((n, d)) * scale + 0.3 * rng.standard_normal(d)
    rows[:, 7], rows[:, d // 2] = 400 + spread * rng.standard_normal(n), -150 + spread * rng.standard_normal(n)
    return rows
