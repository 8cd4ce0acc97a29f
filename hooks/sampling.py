"""Sampling in which every observation has a seed of its own, whatever shares its batch.

`torch.multinomial` draws for a whole batch from one generator, so an answer would depend on its neighbours, and two
models could not be given the same luck. Here each row draws from uniform numbers of its own seed, one a step, by the
inverse of its cumulative distribution in the order of the vocabulary: models that are compared with equal seeds are
compared under common random numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class SeededSampling:
    """A logits processor for a greedy `generate(logits_processor=[...])`: it leaves one token a row, the one drawn.

    `seeds` has one seed a row; a batch of k times as many rows repeats them (cells as rows). Temperature, top-k, top-p
    and repetition penalty act in the order and by the rules of `transformers`, but for one: pads count as no token that
    was repeated (`real` says where the prompt's tokens are). A temperature of 0 takes the likeliest token.
    """

    def __init__(
        self,
        seeds: Sequence[int],
        *,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        repetition_penalty: float = 1.0,
        real: Bool[Tensor, "row pos"] | None = None,
    ) -> None:
        if temperature < 0 or not 0 < top_p <= 1 or top_k < 0 or repetition_penalty <= 0:
            raise ValueError(
                f"temperature={temperature}, top_p={top_p}, top_k={top_k}, repetition_penalty={repetition_penalty}: "
                "expected a temperature >= 0 (0 is greedy), top_p in (0, 1], top_k >= 0 (0 is all), a penalty > 0."
            )
        if repetition_penalty != 1 and real is None:
            raise ValueError("a repetition penalty needs to know which tokens are pads: expected real=[row, pos].")
        self._temperature, self._top_k, self._top_p = temperature, top_k, top_p
        self._penalty, self._real = repetition_penalty, real
        self._drawn = np.stack([np.random.default_rng(seed).random(max_new_tokens) for seed in seeds])
        self._width = self._prompt = 0

    def __call__(self, input_ids: Int[Tensor, "row pos"], scores: Float[Tensor, "row vocab"]) -> Tensor:
        rows, width = input_ids.shape
        if width != self._width + 1:
            self._prompt = width  # another generation begins
        self._width = width
        scores = self._penalised(input_ids, scores.float())
        chosen = scores.argmax(dim=1) if self._temperature == 0 else self._draw(scores, width - self._prompt, rows)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen[:, None], 0.0)

    def _draw(self, scores: Float[Tensor, "row vocab"], step: int, rows: int) -> Int[Tensor, " row"]:
        u = np.tile(self._drawn[:, step], rows // len(self._drawn))
        probabilities, ids = self._kept(scores / self._temperature)
        mass = probabilities.double().cumsum(dim=1)
        target = torch.from_numpy(u).to(mass.device)[:, None] * mass[:, -1:]
        place = torch.searchsorted(mass, target, right=True).clamp_max(mass.shape[1] - 1)
        return place[:, 0] if ids is None else ids.gather(1, place)[:, 0]

    def _kept(self, scores: Tensor) -> tuple[Float[Tensor, "row n"], Int[Tensor, "row n"] | None]:
        """Probabilities of the tokens that may be drawn, and their ids where these are not all of the vocabulary."""
        ids = None
        if 0 < self._top_k < scores.shape[1]:
            ids = scores.topk(self._top_k, dim=1).indices.sort(dim=1).values
            scores = scores.gather(1, ids)
        probabilities = scores.softmax(dim=1)
        if self._top_p < 1:
            ordered, order = probabilities.sort(dim=1)  # from the least: what lies in the tail of 1 - top_p is dropped
            dropped = ordered.cumsum(dim=1) <= 1 - self._top_p
            dropped[:, -1] = False
            probabilities = probabilities.masked_fill(torch.zeros_like(dropped).scatter_(1, order, dropped), 0.0)
        return probabilities, ids

    def _penalised(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self._penalty == 1:
            return scores
        assert self._real is not None
        real = self._real.to(input_ids.device).repeat(len(input_ids) // len(self._real), 1)
        written = real.new_ones(len(real), input_ids.shape[1] - real.shape[1])
        seen = torch.zeros_like(scores, dtype=torch.bool)
        # Pads are sent to a token that is real, so that the mask needs no column of its own.
        ids = torch.where(torch.cat([real, written], dim=1), input_ids, input_ids[:, -1:])
        seen.scatter_(1, ids, True)
        return torch.where(seen, torch.where(scores < 0, scores * self._penalty, scores / self._penalty), scores)
