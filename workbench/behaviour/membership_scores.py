"""Membership scores of one text from the log-probabilities of its tokens, in nats. Numbers only, no model.

A text that was trained on is expected to be likelier. Every score here is higher for a more member-like text, except
the two `paper_b_*`, which keep the sign and the formula of that paper's notebook (arXiv:2602.00298); `orientation` says
which is which.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

SD_FLOOR = 1e-6  # below it the next token is certain to float32, and log p − mean is 0 up to rounding
PAPER_B = "paper_b_"

Share = int | float  # percent
LogProbs = Float[np.ndarray, " n"]


def orientation(score: str) -> int:
    """1 where a higher value of this column speaks for a member, -1 where a lower one does."""
    return -1 if score.startswith(PAPER_B) else 1


def checked_k(k: Share | Sequence[Share]) -> tuple[float, ...]:
    """The percentages of min-k, each once, ascending. Raises ValueError outside 0 < k <= 100."""
    ks = (k,) if isinstance(k, int | float) else tuple(k)
    if not ks or not all(0 < one <= 100 for one in ks):
        raise ValueError(f"k={k} is no share of the tokens: expected percent, above 0 and at most 100, such as k=20.")
    return tuple(sorted({float(one) for one in ks}))


def lowest(values: LogProbs, k: Share) -> Float[np.ndarray, " lowest"]:
    """The lowest k % of the values: floor(n · k / 100) of them, but at least one; in no order."""
    (k,) = checked_k(k)
    if not len(values):
        raise ValueError("min-k of a text without scored tokens: expected at least one.")
    count = max(1, math.floor(len(values) * k / 100 + 1e-9))
    return np.partition(values, count - 1)[:count]  # count - 1 is an index: count itself is none where k is 100


def loss(log_probs: LogProbs, per: int | None = None) -> float:
    """Minus the loss: the mean of log p over tokens, or its sum over `per` (characters; 1: the text). Source: Yeom et
    al. 2018, arXiv:1709.01604."""
    return float(log_probs.sum() / (len(log_probs) if per is None else per))


def zlib_score(log_probs: LogProbs, text: str) -> float:
    """The mean of log p over the bytes of the compressed text. Source: Carlini et al. 2021, arXiv:2012.07805."""
    return loss(log_probs) / len(zlib.compress(text.encode()))


def min_k(log_probs: LogProbs, k: Share) -> float:
    """The mean of the lowest k % of log p. Source: Shi et al. 2024, arXiv:2310.16789."""
    return float(lowest(log_probs, k).mean())


def min_k_plus_plus(log_probs: LogProbs, mean: LogProbs, sd: LogProbs, k: Share) -> float:
    """The mean of the lowest k % of (log p − mean) / sd, mean and sd of log p over the vocabulary under p. Source:
    Zhang et al. 2025, arXiv:2404.02936."""
    return float(lowest((log_probs - mean) / np.maximum(sd, SD_FLOOR), k).mean())


def recall(behind_prefix: LogProbs, alone: LogProbs) -> float | None:
    """log p of the text behind a prefix of non-members, over its log p alone; both are negative, and a prefix costs a
    member more. None where the text alone is certain. Source: Xie et al. 2024, arXiv:2406.15968."""
    return None if alone.sum() == 0 else float(behind_prefix.sum() / alone.sum())


def paper_b_min_k(log_probs: LogProbs, k: Share) -> float:
    """Minus min-k %: a loss, lower for a more member-like text."""
    return -min_k(log_probs, k)


def paper_b_zlib(log_probs: LogProbs, text: str) -> float:
    """Perplexity over the compressed bits a byte of text (level 9): lower for a more member-like text."""
    raw = text.encode()
    return math.exp(-loss(log_probs)) / (8 * len(zlib.compress(raw, 9)) / len(raw))
