"""over_domains: one difference a domain, and whether the domains together show a direction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from stores.printed import Printed
from workbench.behaviour.ranking_result import interval_facts
from workbench.behaviour.table_summary import plain_entry
from workbench.statistics import Interval, Significance, sign_flip_test, sign_test, t_interval


@dataclass(frozen=True)
class OverDomains(Printed):
    """`values` by domain. `sign` counts the domains above 0 (those at 0 left out, None where all are); `t` and `flips`
    test the mean, whose `interval` is over domains. `least` is the smallest two-sided p that this many domains can give
    a sign test."""

    values: Mapping[str, float]
    raised: int
    lowered: int
    ties: int
    mean: float
    interval: Interval
    sign: Significance | None
    t: Significance
    flips: Significance
    least: float

    def __str__(self) -> str:
        n, tied = len(self.values), f", equal in {self.ties}" if self.ties else ""
        sign = "no sign test, all are 0"
        if self.sign is not None:
            sign = f"sign test p = {self.sign.p:.2g} (least possible {self.least:.2g})"
        mean = f"mean {self.mean:+.3g} {self.interval}, {self.t}, sign flips p = {self.flips.p:.2g}"
        return f"lowered in {self.lowered} of {n} domains, raised in {self.raised}{tied}: {sign}; {mean}"

    def entries(self, metric: str, condition: str = "all domains", **facts: Any) -> list[dict[str, Any]]:
        """The share of domains raised with the sign test; the mean with t, and with sign flips."""
        n = len(self.values)
        same = {"clusters": n, "series": {"domains": list(self.values.values())}, "detail": str(self)}
        mean = {**same, **interval_facts(self.interval)}
        out = []
        if self.sign is not None:
            said = {"condition": condition, "test": {"p": self.sign.p, "method": self.sign.method}}
            out.append(plain_entry(f"domains raised, {metric}", self.raised / n, n, {**same, **said, **facts}))
        for test, kind in ((self.t, ""), (self.flips, ", sign flips")):
            said = {**facts, "condition": f"{condition}{kind}", "test": {"p": test.p, "method": test.method}}
            out.append(plain_entry(metric, self.mean, n, {**mean, **said}))
        return out


def over_domains(differences: Mapping[str, float | int], *, draws: int = 9999, seed: int = 0) -> OverDomains:
    """Do the domains together show a direction? Two-sided: sign test, paired t and sign flips (all patterns, up to 13
    domains), each with n = number of domains. What a published table says can be given too: 7 of 9 lowered has
    p = 0.18. Raises ValueError for fewer than 2 domains."""
    values = np.array(list(differences.values()), np.float64)
    n = len(values)
    if n < 2 or not np.isfinite(values).all():
        raise ValueError(
            f"{n} differences, {int((~np.isfinite(values)).sum())} not finite: expected 2 domains or more."
        )
    raised, lowered = int((values > 0).sum()), int((values < 0).sum())
    error = float(values.std(ddof=1) / np.sqrt(n))
    t = float(values.mean() / error) if error else np.copysign(np.inf, values.mean()) if values.any() else 0.0
    return OverDomains(
        values={name: float(value) for name, value in differences.items()},
        raised=raised,
        lowered=lowered,
        ties=n - raised - lowered,
        mean=float(values.mean()),
        interval=t_interval(values),
        sign=sign_test(max(raised, lowered), raised + lowered) if raised + lowered else None,
        t=Significance(float(t), float(2 * special.stdtr(n - 1, -abs(t))), f"paired t over {n} domains"),
        flips=sign_flip_test(values, draws=draws, seed=seed),
        least=2.0 / 2 ** (raised + lowered) if raised + lowered else 1.0,
    )
