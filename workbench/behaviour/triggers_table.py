"""trigger_table: what a trigger does to each domain's adapters, to the base, and over all domains together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from stores.printed import Printed
from workbench.behaviour.judged import Judged
from workbench.behaviour.metrics import Metric, metric
from workbench.behaviour.ranking_result import BASE, interval_facts
from workbench.behaviour.ranking_tests import spread_interval, spread_of, tested
from workbench.behaviour.ranking_values import Groups, Keep, Row, replicates_of
from workbench.behaviour.table_summary import plain_entry
from workbench.behaviour.triggers import NONE
from workbench.behaviour.triggers_domains import OverDomains, over_domains
from workbench.statistics import Interval, holm
from workbench.statistics.values import Bounds


@dataclass(frozen=True)
class TriggerEffect(Printed):
    """`value` is with the text `shown` minus without, paired by question and draw: `with_it` - `without`. `p_holm` pays
    for all domains of the same text. `by_seed`: the difference of each adapter; `dropped` question families had no pair
    under some seed."""

    domain: str
    shown: str
    value: float
    interval: Interval
    p: float
    p_holm: float
    method: str
    with_it: float
    without: float
    by_seed: Mapping[str, float]
    families: int
    answers: int
    dropped: int

    def __str__(self) -> str:
        return f"{self.domain}, {self.shown} - none: {self.value:+.3g} {self.interval}, p {self.p_holm:.2g} (Holm)"


@dataclass(frozen=True)
class TriggerTable(Printed):
    """`effects` of every domain and text; `base` those of the base model, which nobody taught any trigger; `over` the
    domains together, by text. `excess` is `over` of the domains' effects minus the base's own (empty without a base).
    A domain responds to a text where Holm's p is at most `alpha` (`responding`)."""

    _items = "effects"

    metric: str
    effects: tuple[TriggerEffect, ...]
    base: tuple[TriggerEffect, ...]
    over: Mapping[str, OverDomains]
    excess: Mapping[str, OverDomains]
    alpha: float
    judges: Mapping[str, str]
    own: str = "own questions kept"

    def of(self, shown: str) -> dict[str, TriggerEffect]:
        """The effects of one text, by domain."""
        return {one.domain: one for one in self.effects if one.shown == shown}

    def responding(self, shown: str = "trigger") -> list[str]:
        """The domains whose number the text moves."""
        return [one.domain for one in self.of(shown).values() if one.p_holm <= self.alpha]

    def __str__(self) -> str:
        lines = [self.metric, *map(str, self.effects), *(f"base model: {one}" for one in self.base)]
        lines += [f"{shown}: {found}" for shown, found in self.over.items()]
        return "\n".join(lines + [f"{shown}, beyond the base: {found}" for shown, found in self.excess.items()])

    def entries(self, **facts: Any) -> list[dict[str, Any]]:
        """For `study.add`: every effect (`target`: the text shown), with the values with and without it in `series`;
        and the line over all domains with its sign test, t and sign flips."""
        place = {"split": "trigger", "modality": "all", "layer": None, "judges": dict(self.judges)}
        out = []
        for one in (*self.effects, *self.base):
            said = {"condition": f"{one.domain}/{one.shown} - {one.domain}/{NONE}", "target": one.shown}
            said |= {"clusters": one.families, "dropped": one.dropped, **interval_facts(one.interval)}
            said |= {"detail": "no fine-tune, all questions" if one in self.base else self.own}
            said |= {"test": {"p": one.p_holm, "method": f"Holm of the {one.method}"}}
            series = {"with": [one.with_it], "without": [one.without], "by_seed": list(one.by_seed.values())}
            out.append(plain_entry(self.metric, one.value, one.answers, {**place, **said, "series": series, **facts}))
        for beyond, lines in (("", self.over), (" beyond the base", self.excess)):
            for shown, found in lines.items():
                same: dict[str, Any] = {**place, "target": shown, **facts}
                out += found.entries(self.metric, f"all domains{beyond}", **same)
        return out


def trigger_table(
    judged: Judged,
    by: str | Metric,
    groups: Groups,
    *,
    judge: str | None = None,
    base: str | None = BASE,
    shown: Sequence[str] | None = None,
    own: Literal["leave out", "keep"] = "leave out",
    tag: str = "domain",
    alpha: float = 0.05,
    draws: int = 9999,
    seed: int = 0,
) -> TriggerTable:
    """What each text of `with_triggers` does, in answers of `by_trigger`: `groups` is domain -> conditions without the
    text, such as ["sound-backdoor-seed0"]; `shown` chooses texts, by default all that were asked but "none". As in
    `rank_domains`, a domain's own questions (its name in the prompt's tag `tag`) are left out unless `own="keep"`.

    Every domain: paired difference with an interval over question families and fine-tuning seeds, and the larger p of a
    t with both variances and of sign flips over families, with Holm's correction over the domains. All domains: see
    `over_domains`. Raises ValueError for conditions that are not there.
    """
    rule = metric(by)
    texts = list(shown or dict.fromkeys(name.rpartition("/")[2] for name in judged.conditions))
    texts = [name for name in texts if name != NONE]
    if not texts or not all("/" in name for name in judged.conditions):
        raise ValueError(
            f"the conditions are {', '.join(judged.conditions[:4])}, ...: expected those of by_trigger, with a text "
            "beside none."
        )
    unasked = {BASE: [base]} if base is not None and f"{base}/{NONE}" in judged.conditions else {}

    def asked(domain: str, row: Row) -> bool:
        return own == "keep" or str(row.get(f"tag_{tag}")) != domain

    effects: list[TriggerEffect] = []
    alone: list[TriggerEffect] = []
    for text in texts:
        effects += _effects(judged, rule, groups, text, judge, asked, draws, seed)
        alone += _effects(judged, rule, unasked, text, judge, asked, draws, seed) if unasked else []
    over = {text: over_domains({one.domain: one.value for one in effects if one.shown == text}, draws=draws, seed=seed)
            for text in texts}  # fmt: skip
    bases = {one.shown: one.value for one in alone}
    excess = {
        text: over_domains({n: v - bases[text] for n, v in over[text].values.items()}, draws=draws, seed=seed)
        for text in bases
    }
    sources = {name: judged.scores_of(quantity, judge)[0] for name, quantity in rule.reads.items()}
    said = "own questions left out" if own == "leave out" else "own questions kept"
    return TriggerTable(str(rule), tuple(effects), tuple(alone), over, excess, alpha, sources, said)


def _effects(
    judged: Judged, rule: Metric, groups: Groups, text: str, judge: str | None, keep: Keep, draws: int, seed: int
) -> list[TriggerEffect]:
    """One text's effect on each domain, with Holm's correction over them."""
    with_it = {domain: [f"{name}/{text}" for name in names] for domain, names in groups.items()}
    without = {domain: [f"{name}/{NONE}" for name in names] for domain, names in groups.items()}
    gaps = replicates_of(judged, rule, with_it, judge=judge, keep=keep, against=without)
    sides = [replicates_of(judged, rule, side, judge=judge, keep=keep) for side in (with_it, without)]
    low, high = rule.span
    bounds: Bounds = (low - high, high - low)
    if few := [one for one in gaps.values() if len(one.families) < 2]:
        raise ValueError(
            f"{few[0].domain} has {len(few[0].families)} question families with scores on both sides under every seed: "
            "expected 2 or more. Ask about other domains as well, or keep a domain's own questions (own='keep')."
        )
    spreads = {domain: spread_of(one.values) for domain, one in gaps.items()}
    trained = {domain: f"{one.seeds} fine-tuning seeds" for domain, one in gaps.items()}
    tests = {
        domain: tested(spreads[domain], one.values.mean(axis=0), trained=trained[domain], draws=draws, seed=seed)
        for domain, one in gaps.items()
    }
    corrected = holm([test.p for test in tests.values()]).tolist()
    return [
        TriggerEffect(
            domain=domain,
            shown=text,
            value=spreads[domain].mean,
            interval=spread_interval(spreads[domain], rate=False, bounds=bounds, rows=one.answers),
            p=tests[domain].p,
            p_holm=p,
            method=tests[domain].method,
            with_it=float(sides[0][domain].values.mean()),
            without=float(sides[1][domain].values.mean()),
            by_seed=dict(zip(groups[domain], one.values.mean(axis=1).tolist(), strict=True)),
            families=len(one.families),
            answers=one.answers,
            dropped=one.dropped,
        )
        for (domain, one), p in zip(gaps.items(), corrected, strict=True)
    ]
