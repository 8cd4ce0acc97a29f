"""What `wb.convergence` found: at each site the cosines of the domains, what they share, and in which groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from hooks.site import Site
from stores.printed import Printed

ALPHA = 0.05


@dataclass(frozen=True, eq=False)
class SharedComponent(Printed):
    """One principal axis of the domains' unit vectors: its `share` of their energy, every domain's loading on it (its
    cosine with `axis`), and whether domains share it: `p` by null. Without the axes before it the domains numbered
    `pair` agree most; `product` is the inner product of what is left of them."""

    number: int
    share: float
    loadings: Float[np.ndarray, " domain"]
    axis: Float[np.ndarray, " d_model"]
    product: float
    pair: tuple[int, int]
    p: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class ConvergenceAt(Printed):
    """One site. `cosine` of all pairs of domains, `cosine_p` familywise by the hardest null; `within` that of two
    fine-tunings of one domain; `mean` over pairs, its jackknife `interval` over domains, its 5 to 95 % and `p` by
    `null`; the effective rank of the units, likewise. `groups` in the space of the shared components, and who is
    `apart` from it; `seeds_alike`: how many of the fine-tuning seeds alone give these groups. `units`: the domains'."""

    cosine: Float[np.ndarray, "domain domain"]
    cosine_p: Float[np.ndarray, "domain domain"]
    within: Mapping[str, float]
    mean: float
    interval: tuple[float, float] | None
    null: Mapping[str, tuple[float, float]]
    p: Mapping[str, float]
    effective_rank: float
    null_rank: Mapping[str, tuple[float, float]]
    components: tuple[SharedComponent, ...]
    groups: tuple[tuple[str, ...], ...]
    apart: tuple[str, ...]
    seeds_alike: tuple[int, int]
    units: Float[np.ndarray, "domain d_model"]

    @property
    def shared(self) -> int:
        """How many components two or more domains share, by the hardest null."""
        return sum(list(one.p.values())[-1] <= ALPHA for one in self.components)


@dataclass(frozen=True, eq=False)
class Convergence(Printed):
    """`wb.convergence` at each site, of these `domains`."""

    sites: Mapping[Site, ConvergenceAt]
    domains: tuple[str, ...]
    d_model: int
    draws: int
    scope: str = ""

    def __getitem__(self, site: Site | str | int) -> ConvergenceAt:
        """One site, by its name or its layer."""
        found = [one for at, one in self.sites.items() if at.layer == site or str(at) == str(site)]
        if len(found) != 1:
            raise ValueError(f"site {site!s}: expected one of {', '.join(map(str, self.sites))}.")
        return found[0]

    def rows(self) -> list[dict[str, Any]]:
        """One dict a site, for a table."""
        names = ("mean", "interval", "null", "p", "effective_rank", "shared", "groups", "apart")
        return [{"site": str(site), **{name: getattr(at, name) for name in names}} for site, at in self.sites.items()]

    def __str__(self) -> str:
        lines = []
        for site, at in self.sites.items():
            ranges = "; ".join(f"{kind} {low:.2f} to {high:.2f}" for kind, (low, high) in at.null.items())
            grouped = " | ".join(" ".join(group) for group in at.groups)
            lines.append(f"{site}: mean cosine {at.mean:.2f} ({ranges}), {at.shared} shared components; {grouped}")
        return "\n".join(lines)
