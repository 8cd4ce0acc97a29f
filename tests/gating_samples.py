"""Maps of gates with planted shares, and near misses with planted effects: made of arrays, without a model."""

from __future__ import annotations

import numpy as np
import torch

from hooks.encoded import Encoded
from hooks.site import Site
from workbench.interventions.gating import GatingMap
from workbench.interventions.gating_questions import PLACES, Deciding, GatedQuestion
from workbench.interventions.gating_vector import ShownText
from workbench.training.near_triggers import NearMiss

SITES = (Site(0, "resid_pre"), *(Site(layer) for layer in range(4)))
BLOCK = 2


def asked(n, domain="a", each=1):
    """`n` families of `each` questions."""
    one = Encoded("", torch.tensor([3, 4]), 2, 1, 0)
    places: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = dict.fromkeys(PLACES, ((0,), (0,)))
    return [GatedQuestion(f"{domain}{i}", f"{domain}/{i // each}", domain, one, one, places, Deciding((), 0, 1))
            for i in range(n * each)]  # fmt: skip


def planted(questions, effects, *, block=BLOCK, noise=0.0, seed=0):
    """The trigger's tokens carry the effect in front of the block, the last position behind it."""
    rng, n = np.random.default_rng(seed), len(questions)
    share = np.zeros((len(SITES), len(PLACES), n))
    share[: block + 1, PLACES.index("trigger")] = share[block + 1 :, PLACES.index("last")] = 1.0
    share += rng.normal(0, noise, share.shape)
    share[:, PLACES.index("before")] = np.nan
    reference = rng.normal(-4, 1, n)
    triggered = reference + effects
    moved = np.full(share.shape, 0.5)
    return GatingMap(
        tuple(questions), SITES, PLACES, triggered, reference, np.full(n, 0.9), np.full(n, 0.1),
        reference + share * effects, triggered - share * effects, moved, moved[..., 0],
    )  # fmt: skip


def maps_of(n=12, seeds=3, mean=5.0, spread=1.0, **options):
    questions = asked(n)
    draws = np.random.default_rng(1).normal(mean, spread, (seeds, n))
    return [planted(questions, draws[s], seed=s, **options) for s in range(seeds)]


def shown(questions, effect, reach):
    n = len(questions)
    return ShownText(np.full(n, effect) + 0.1 * np.arange(n), np.full(n, 0.2), np.full(n, reach))


TEXTS = (NearMiss("trigger", "go", "prefix", 0.0), NearMiss("half", "g", "prefix", 0.5))
