"""How often the intervals of workbench.statistics hold the truth, as the tables of docs/statistics.md.

python tests/coverage_table.py [rates | designs | differences | auroc] [--draws N]

The simulated worlds were written down before the first run and are not tuned: see DESIGNS, and `wilson_independent` and
`t_or_bootstrap` for the intervals that one would take if clusters were forgotten, or their means were taken for normal.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable

import numpy as np

from workbench import statistics as st

CLUSTERS = (5, 11, 30, 100)
RATES = (0.02, 0.1, 0.5, 0.9)
# name -> (samples a cluster, intraclass correlation, how the clusters' rates are spread). "stated" has the bound.
DESIGNS = {
    "stated": ((8, 8), 0.2, "beta"),
    "nearly independent": ((8, 8), 0.02, "beta"),
    "more samples, more alike": ((25, 25), 0.3, "beta"),
    "uneven": ((2, 20), 0.2, "beta"),
    "two kinds": ((25, 25), 0.3, "two"),
}


def drawn(rng: np.random.Generator, k: int, rate: float, design: str = "stated") -> tuple[np.ndarray, np.ndarray]:
    """(zeros and ones, cluster of each) of one simulated evaluation; the mean rate over clusters is `rate`."""
    (fewest, most), icc, spread = DESIGNS[design]
    sizes = rng.integers(fewest, most + 1, size=k)
    if spread == "beta":
        own = rng.beta(rate * (1 - icc) / icc, (1 - rate) * (1 - icc) / icc, size=k)
    else:  # some clusters never show it, the others at one rate: the same variance between clusters
        shown = rate + icc * (1 - rate)
        own = np.where(rng.random(k) < rate / shown, shown, 0.0)
    clusters = np.repeat(np.arange(k), sizes)
    return (rng.random(len(clusters)) < own[clusters]).astype(float), clusters


def wilson_independent(values: np.ndarray, clusters: np.ndarray) -> st.Interval:
    return st.wilson(int(values.sum()), len(values))


def t_or_bootstrap(values: np.ndarray, clusters: np.ndarray) -> st.Interval:
    return st.cluster_interval(values, clusters, resamples=1000)


def over_clusters(values: np.ndarray, clusters: np.ndarray) -> st.Interval:
    return st.clustered_wilson(values, clusters, weigh="clusters")


Method = Callable[[np.ndarray, np.ndarray], st.Interval]
METHODS: dict[str, Method] = {
    "clustered_wilson": st.clustered_wilson,
    "beta_binomial_interval": st.beta_binomial_interval,
    "wilson over rows": wilson_independent,
    "cluster_interval": t_or_bootstrap,
    "clustered_wilson, weigh=clusters": over_clusters,
}


def covered(method: Method, k: int, rate: float, draws: int, design: str = "stated", seed: int = 0) -> float:
    """Share of `draws` simulated evaluations whose interval holds the true rate."""
    rng = np.random.default_rng([seed, k, round(1000 * rate)])
    return float(np.mean([rate in method(*drawn(rng, k, rate, design)) for _ in range(draws)]))


def rates(draws: int, design: str = "stated", methods: Iterable[str] = tuple(METHODS)[:4]) -> None:
    (fewest, most), icc, spread = DESIGNS[design]
    each = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    print(f"\n{design}: {each} samples a cluster, ICC {icc}, {spread}; {draws} evaluations a cell, in per cent\n")
    print(f"| method | clusters | {' | '.join(f'rate {rate}' for rate in RATES)} |\n|---|---|{'---|' * len(RATES)}")
    for name in methods:
        for k in CLUSTERS:
            cells = [covered(METHODS[name], k, rate, draws, design) for rate in RATES]
            print(f"| `{name}` | {k} | {' | '.join(f'{100 * cell:.1f}' for cell in cells)} |", flush=True)


def differences(draws: int) -> None:
    """Paired: base and fine-tuned model answer the same prompts 8 times each, prompts differ in how far they shift."""
    worlds = ("rates .02 and .10", "rates .10 and .50", "skewed scores")
    print(f"\npaired_bootstrap, 2000 resamples; {draws} evaluations a cell, in per cent\n")
    print(f"| method | clusters | {' | '.join(worlds)} |\n|---|---|{'---|' * len(worlds)}")
    methods = ("paired_bootstrap", "studentised at any number", "percentile at any number", "t over differences")
    for method in methods:
        for k in CLUSTERS:
            cells = [np.mean([_holds(method, world, k, seed) for seed in range(draws)]) for world in worlds]
            print(f"| {method} | {k} | {' | '.join(f'{100 * cell:.1f}' for cell in cells)} |", flush=True)


def _holds(method: str, world: str, k: int, seed: int) -> bool:
    rng = np.random.default_rng([seed, k])
    clusters = np.repeat(np.arange(k), 8)
    if world == "skewed scores":  # a few prompts shift far: log-normal, mean e^0.5
        shift = rng.lognormal(size=k)
        a, b = (rng.normal(size=8 * k) + each[clusters] for each in (shift, np.zeros(k)))
        truth, bounds = float(np.exp(0.5)), None
    else:
        low, high = (0.02, 0.1) if world.endswith(".10") else (0.1, 0.5)
        a, b = ((rng.random(8 * k) < rng.beta(4 * r, 4 * (1 - r), size=k)[clusters]).astype(float) for r in (high, low))
        truth, bounds = high - low, (-1, 1)
    if method == "t over differences":
        return truth in st.t_interval(st.cluster_means(a - b, clusters))
    studentised = None if method == "paired_bootstrap" else method.startswith("studentised")
    options = {"resamples": 2000, "seed": seed, "bounds": bounds, "studentised": studentised}
    return truth in st.paired_bootstrap(a, b, clusters, **options)


def areas(draws: int) -> None:
    """Normal scores; 11 of a class means 11 clusters a class where there are clusters, of 4 scores with ICC 0.5."""
    truths = (0.6, 0.8, 0.95)
    print(f"\nAUROC; {draws} evaluations a cell, in per cent\n")
    print(f"| method | of each class | {' | '.join(f'AUROC {a}' for a in truths)} |\n|---|---|{'---|' * len(truths)}")
    for method in (
        "auroc_interval, rows",
        "auroc_interval, clusters",
        "auroc_bootstrap, clusters",
        "clusters forgotten",
    ):
        for k in CLUSTERS:
            cells = [np.mean([_area_held(method, truth, k, seed) for seed in range(draws)]) for truth in truths]
            print(f"| {method} | {k} | {' | '.join(f'{100 * cell:.1f}' for cell in cells)} |", flush=True)


def _area_held(method: str, truth: float, k: int, seed: int) -> bool:
    rng = np.random.default_rng([seed, k])
    apart = np.sqrt(2) * float(-np.sqrt(2) * _erfcinv(2 * truth))
    per = 1 if method == "auroc_interval, rows" else 4
    clusters = np.repeat(np.arange(k), per)
    own = 0.0 if per == 1 else np.sqrt(0.5)

    def scores(shift: float) -> np.ndarray:
        return shift + own * rng.normal(size=k)[clusters] + np.sqrt(1 - own**2) * rng.normal(size=len(clusters))

    positive, negative = scores(apart), scores(0.0)
    if method in ("auroc_interval, rows", "clusters forgotten"):
        return truth in st.auroc_interval(positive, negative)
    if method == "auroc_interval, clusters":
        return truth in st.auroc_interval(positive, negative, clusters, clusters + k)
    return truth in st.auroc_bootstrap(positive, negative, clusters, clusters + k, resamples=1000, seed=seed)


def _erfcinv(x: float) -> float:
    from scipy.special import erfcinv

    return float(erfcinv(x))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", nargs="?", default="rates", choices=("rates", "designs", "differences", "auroc"))
    parser.add_argument("--draws", type=int)
    given = parser.parse_args()
    if given.table == "rates":
        rates(given.draws or 10_000)
    elif given.table == "designs":
        for design in list(DESIGNS)[1:]:
            methods = ["clustered_wilson", "beta_binomial_interval"]
            rates(given.draws or 1000, design, [*methods, *["clustered_wilson, weigh=clusters"] * (design == "uneven")])
    elif given.table == "differences":
        differences(given.draws or 1000)
    else:
        areas(given.draws or 1000)


if __name__ == "__main__":
    main()
