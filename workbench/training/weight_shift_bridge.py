"""Predicted against measured shifts: does the constant part of an adapter's weights say where its activations go?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from hooks.site import Site
from stores.printed import Printed
from workbench.statistics import p_value

DRAWS = 999


@dataclass(frozen=True, eq=False)
class Bridge(Printed):
    """At one `site`. `own` [adapter]: cosine of the predicted with the measured shift; `others` [adapter]: the mean
    cosine of its measured shift with what the adapters of other domains predict; `ratio` [adapter]: predicted over
    measured length; `explained` [adapter]: 1 - ‖measured - predicted‖² / ‖measured‖², below 0 where the prediction is
    worse than none. `gap` is the mean of own - others over domains, `interval` its 95 % (t over domains), `p` that of
    so large a gap when domains exchange their predictions, None with fewer than 5 domains (too few exchanges)."""

    site: Site
    names: tuple[str, ...]
    own: Float[np.ndarray, " adapter"]
    others: Float[np.ndarray, " adapter"]
    ratio: Float[np.ndarray, " adapter"]
    explained: Float[np.ndarray, " adapter"]
    gap: float
    interval: tuple[float, float]
    p: float | None
    draws: int


def weight_bridge(
    predicted: Mapping[str, Float[np.ndarray, "site d_model"]],
    measured: Mapping[str, Float[np.ndarray, "site d_model"]],
    domains: Mapping[str, str],
    *,
    sites: Sequence[Site],
    draws: int = DRAWS,
    seed: int = 0,
) -> list[Bridge]:
    """The bridge at every site, of the adapters that are `predicted` (`constant_shift`, at these `sites`). `domains`:
    adapter -> domain.

    The control that counts is another domain's prediction: any change of these modules moves the stream along its loud
    axes. Raises ValueError for fewer than 2 domains, or a shift of nothing.
    """
    names = list(predicted)
    owner = [domains[name] for name in names]
    kinds = list(dict.fromkeys(owner))
    if len(kinds) < 2:
        raise ValueError(f"a bridge of {len(kinds)} domains has no other domain's prediction: expected at least 2.")
    out = []
    for i, site in enumerate(sites):
        made = np.stack([predicted[name][i] for name in names])
        found = np.stack([measured[name][i] for name in names])
        lengths = np.linalg.norm(made, axis=1), np.linalg.norm(found, axis=1)
        if not (lengths[0].all() and lengths[1].all()):
            raise ValueError("a shift of nothing has no direction: leave out the sites that some adapter cannot move.")
        cosine = (made / lengths[0][:, None]) @ (found / lengths[1][:, None]).T  # [predicted, measured]
        of = np.array([[one == other for other in owner] for one in owner])
        own = np.diag(cosine)
        others = np.array([cosine[~of[:, j], j].mean() for j in range(len(names))])
        table = _by_domain(cosine, owner, kinds)
        out.append(Bridge(
            site,
            tuple(names),
            own,
            others,
            lengths[0] / lengths[1],
            1 - ((found - made) ** 2).sum(axis=1) / lengths[1] ** 2,
            *_gap(table, draws, seed),
            draws,
        ))  # fmt: skip
    return out


def _by_domain(cosine: np.ndarray, owner: Sequence[str], kinds: Sequence[str]) -> Float[np.ndarray, "domain domain"]:
    """Mean cosine of what one domain's adapters predict with what another's do; on the diagonal adapter by adapter."""
    place = np.array([kinds.index(one) for one in owner])
    table = np.array(
        [[cosine[np.ix_(place == i, place == j)].mean() for j in range(len(kinds))] for i in range(len(kinds))]
    )
    np.fill_diagonal(table, [np.diag(cosine)[place == i].mean() for i in range(len(kinds))])
    return table


def _gap(
    table: Float[np.ndarray, "domain domain"], draws: int, seed: int
) -> tuple[float, tuple[float, float], float | None]:
    from scipy.stats import t

    n = len(table)
    gaps = np.diag(table) - (table.sum(axis=0) - np.diag(table)) / (n - 1)
    value = float(gaps.mean())
    far = float(t.ppf(0.975, n - 1) * gaps.std(ddof=1) / np.sqrt(n))
    if n < 5:
        return value, (value - far, value + far), None
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(n) for _ in range(draws)]
    drawn = [table[order, np.arange(n)].mean() for order in orders]
    return value, (value - far, value + far), p_value(float(np.diag(table).mean()), drawn)
