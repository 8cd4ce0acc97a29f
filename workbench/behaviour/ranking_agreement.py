"""Do rankings agree: of the same domains under other conditions, and of one fine-tuning seed with another?"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from workbench.behaviour.ranking_result import DomainRanking, interval_facts
from workbench.behaviour.table_summary import plain_entry
from workbench.statistics import correlation_interval, correlation_test, critical_correlation
from workbench.statistics.correlation import correlation
from workbench.statistics.exact_correlation import MOST_POINTS, exact_correlation_test

FEWEST = 4  # points of a correlation with an interval
AGREEMENT = "Spearman correlation of rankings"


def ranking_agreement(rankings: Mapping[str, DomainRanking], **facts: Any) -> list[dict[str, Any]]:
    """Spearman's rho of every pair of rankings over the domains that both have, as entries for `study.add`: interval by
    Fisher's z, exact p over all orders of up to 13 domains, and in `detail` how large |rho| must be. n is the number of
    domains. Raises ValueError for fewer than 4 shared domains, and where all values of a ranking are equal."""
    out = []
    for (name, one), (other_name, other) in combinations(rankings.items(), 2):
        shared = [domain for domain in one.values if domain in other.values]
        if len(shared) < FEWEST:
            raise ValueError(
                f"the rankings {name!r} and {other_name!r} share {len(shared)} domains: expected {FEWEST} or more."
            )
        x, y = ([ranking.values[domain] for domain in shared] for ranking in (one, other))
        n = len(shared)
        test = exact_correlation_test(x, y) if n <= MOST_POINTS else correlation_test(x, y)
        said = {"condition": f"{name} - {other_name}", "clusters": n, "split": "agreement", "modality": "all"}
        said |= {"test": {"p": test.p, "method": test.method}, **interval_facts(correlation_interval(x, y))}
        said |= {"detail": f"{n} domains; |rho| of {critical_correlation(n):.2g} is the least with p < .05"}
        out.append(plain_entry(AGREEMENT, test.statistic, n, {**said, "target": one.metric, **facts}))
    return out


def seed_agreement(ranking: DomainRanking, **facts: Any) -> list[dict[str, Any]]:
    """Spearman's rho between the domains' values of one fine-tuning seed and another, the mean over all pairs of seeds
    (`series`: each pair): how far a ranking by one training foretells another's, and so what a predictor of it can
    reach at best. No entry where domains have one seed, other numbers of seeds, or equal values."""
    values = [list(one.by_seed.values()) for one in ranking.domains]
    seeds = {len(own) for own in values}
    if len(seeds) != 1 or (count := seeds.pop()) < 2 or len(values) < FEWEST:
        return []
    by_seed = np.array(values).T
    if any(len(set(row)) == 1 for row in by_seed.tolist()):
        return []
    pairs = [correlation(by_seed[a], by_seed[b]) for a, b in combinations(range(count), 2)]
    said = {"condition": "between fine-tuning seeds", "clusters": count, "split": "agreement", "modality": "all"}
    said |= {"detail": f"mean over {len(pairs)} pairs of seeds", "series": {"pairs": pairs}, "target": ranking.metric}
    return [plain_entry(AGREEMENT, float(np.mean(pairs)), len(values), {**said, **facts})]
