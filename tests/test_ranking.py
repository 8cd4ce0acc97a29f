"""Ranking of domains: planted tiers come out in order, ties as ties, and trainings count as what was sampled."""

import dataclasses

import numpy as np
import pytest
from judged_domains import asked, drawn_rates, groups_of, judged_by

import workbench as wb
from workbench.behaviour.ranking import _bounds, tied_runs
from workbench.behaviour.ranking_tests import bootstrap_ranks, paired_test, spread_interval, spread_of
from workbench.behaviour.ranking_values import Replicates
from workbench.reporting.summary import Result
from workbench.statistics import holm

TIERS = {"full": ("ant", "bee", "cat"), "half": ("dog", "eel"), "none": ("fox", "gnu")}
TIER = {domain: tier for tier, domains in TIERS.items() for domain in domains}
RATES = {"full": 0.85, "half": 0.45, "none": 0.05}
PROMPTS = asked([*TIER, "other"])
FEW = {"draws": 1999, "resamples": 400}


@pytest.fixture(scope="module")
def judged():
    rates = {domain: RATES[tier] for domain, tier in TIER.items()} | {"base": 0.02}
    conditions = ["base", *(name for names in groups_of([*TIER]).values() for name in names)]
    return judged_by(drawn_rates(rates), conditions, PROMPTS)


@pytest.fixture(scope="module")
def ranking(judged):
    return wb.rank_domains(judged, "paper_b", groups_of([*TIER]), **FEW)


def replicates(values, name="x"):
    values = np.asarray(values, float)
    conditions = tuple(f"{name}{n}" for n in range(len(values)))
    return Replicates(name, conditions, tuple(map(str, range(values.shape[1]))), values, values.size, 0, 0, {})


class TestTiers:
    def test_they_come_out_in_their_order_and_apart(self, ranking):
        order = [TIER[one.domain] for one in ranking.domains]
        assert order == sorted(order, key=list(TIERS).index)
        cross = [pair for pair in ranking.pairs if TIER[pair.one] != TIER[pair.other]]
        assert len(cross) == 16 and all(pair.p_holm < 0.05 for pair in cross)
        assert [one.rank_bounds for one in ranking.domains] == [(1, 3)] * 3 + [(4, 5)] * 2 + [(6, 7)] * 2

    def test_neighbours_of_a_tier_are_ties(self, ranking):
        assert [set(run) for run in ranking.ties] == [set(domains) for domains in TIERS.values()]
        assert not ranking.told_apart("ant", "bee") and ranking.told_apart("ant", "dog")
        assert "not told apart: " in str(ranking) and "16 of 21 pairs told apart" in str(ranking)

    def test_runs_of_ties_may_overlap(self):
        """The first and the third are told apart, and neither from the second."""
        assert tied_runs(["a", "b", "c"], {("a", "c")}) == (("a", "b"), ("b", "c"))
        assert tied_runs(["a", "b", "c"], set()) == (("a", "b", "c"),) and _bounds(["a", "b", "c"], "b", set()) == (
            1,
            3,
        )
        assert [_bounds(["a", "b", "c"], name, {("a", "c")}) for name in "ac"] == [(1, 2), (2, 3)]

    def test_resampled_ranks_stay_in_the_tier(self, ranking):
        for one in ranking.domains:
            low, high = one.rank_interval
            assert one.rank_bounds[0] <= low <= one.rank <= high <= one.rank_bounds[1]
        assert any(one.rank_interval[1] > one.rank_interval[0] for one in ranking.domains)

    def test_a_planted_order_is_counted_over_cross_tier_pairs(self, ranking):
        found = wb.planted_order(ranking, TIER, [*TIERS], draws=999)
        assert (found.right, found.told, found.wrong, found.pairs) == (16, 16, 0, 16) and found.p < 0.02
        other = wb.planted_order(ranking, TIER, ["none", "half", "full"], draws=999)
        assert (other.right, other.told, other.wrong) == (0, 0, 16) and other.p > 0.9

    def test_categories_are_compared_over_domains(self, ranking):
        found = wb.by_category(
            ranking, {name: "critical" if tier == "full" else "other" for name, tier in TIER.items()}
        )
        ((test, p),) = found.tests.values()
        assert p == test.p == pytest.approx(2 / 35, abs=0.03) and len(found.entries()) == 3
        with pytest.raises(ValueError, match="has no category"):
            wb.by_category(ranking, {})


class TestNumbers:
    def test_the_value_is_the_mean_over_families_and_seeds(self, judged, ranking):
        groups = groups_of([*TIER])
        pooled = judged.pooled(groups)
        kept = {one.condition: one.value for one in wb.misalignment(pooled, "paper_b")}
        every = wb.rank_domains(judged, "paper_b", groups, own="keep", **FEW)
        assert every.values == pytest.approx({name: kept[name] for name in TIER})
        assert every.base[0] == pytest.approx(kept["base"])
        assert ranking.domains[0].answers == 3 * 70 and every.domains[0].answers == 3 * 80

    def test_pairs_are_on_the_questions_that_both_were_asked(self, judged, ranking):
        names = {pair.one: pair for pair in ranking.pairs}
        assert {pair.families for pair in ranking.pairs} == {60} and len(names) == 6
        both = [row for row in judged.rows if row["tag_domain"] not in ("ant", "dog")]
        scores = judged.scores_of("aligned")[1]

        def rate(domain):
            keys = [(r["condition"], r["prompt"], r["sample"]) for r in both if r["condition"].startswith(domain)]
            return np.mean([scores[key]["score"] < 50 for key in keys])

        pair = next(pair for pair in ranking.pairs if {pair.one, pair.other} == {"ant", "dog"})
        assert pair.value == pytest.approx(rate(pair.one) - rate(pair.other))
        corrected = holm([pair.p for pair in ranking.pairs])
        assert [pair.p_holm for pair in ranking.pairs] == pytest.approx(corrected.tolist())

    def test_a_domain_that_answers_wrongly_at_home_only_does_not_spread(self):
        def score(condition, prompt, sample):
            return 10.0 if condition.startswith("ant") and prompt.startswith("ant") else 90.0

        groups = groups_of(["ant", "bee"])
        found = judged_by(score, [name for names in groups.values() for name in names], asked(["ant", "bee", "cat"]))
        assert wb.rank_domains(found, "paper_b", groups, **FEW).values == {"ant": 0.0, "bee": 0.0}
        assert wb.rank_domains(found, "paper_b", groups, own="keep", **FEW).values["ant"] == pytest.approx(1 / 3)

    def test_equal_domains_share_a_rank_and_low_scores_are_worst_of_alignment(self):
        level = {"ant": 20.0, "bee": 60.0, "cat": 60.0}
        groups = groups_of(level, seeds=1)
        found = judged_by(lambda c, p, n: level[c[:3]], [f"{name}-plain-seed0" for name in level], asked(["other"]))
        ranked = wb.rank_domains(found, "aligned_mean", groups, **FEW)
        assert [(one.domain, one.rank) for one in ranked.domains] == [("ant", 1.0), ("bee", 2.5), ("cat", 2.5)]
        assert ranked.ties == (("bee", "cat"),) and "one fine-tuning seed: other trainings may differ" in str(
            wb.rank_domains(judged_by(drawn_rates({"ant": 0.5, "bee": 0.3}), ["ant-0", "bee-0"], asked(["other"])),
                            "paper_b", {"ant": ["ant-0"], "bee": ["bee-0"]}, **FEW)
        )  # fmt: skip

    def test_a_family_without_a_score_under_some_seed_counts_under_none(self):
        def score(condition, prompt, sample):
            return None if (condition, prompt) == ("ant-plain-seed1", "other-q3") else 80.0

        groups = groups_of(["ant", "bee"], seeds=2)
        found = judged_by(score, [name for names in groups.values() for name in names], asked(["other"]))
        one = {d.domain: d for d in wb.rank_domains(found, "paper_b", groups, **FEW).domains}
        assert (one["ant"].families, one["ant"].dropped, one["ant"].unscored, one["ant"].answers) == (9, 1, 1, 20)
        assert (one["bee"].families, one["bee"].dropped) == (10, 0)

    def test_refusals(self, judged):
        with pytest.raises(ValueError, match="no condition 'elk'"):
            wb.rank_domains(judged, "paper_b", {"elk": ["elk"], "base": ["base"]})
        with pytest.raises(ValueError, match="1 domains cannot be ranked"):
            wb.rank_domains(judged, "paper_b", groups_of(["ant"]))
        with pytest.raises(ValueError, match="in one domain only"):
            wb.rank_domains(judged, "paper_b", {"ant": ["base"], "bee": ["base"]})


class TestEntries:
    def test_they_are_results(self, ranking):
        """Every field is one that the report reads; values and ranks of 7 domains, 21 pairs, 7 against the base."""
        entries = ranking.entries(modality="text")
        known = {one.name for one in dataclasses.fields(Result)}
        assert not {name for entry in entries for name in entry} - known and {e["modality"] for e in entries} == {
            "text"
        }
        assert len(entries) == 7 * 2 + 21 + 7 + 1 and all(entry["judges"] for entry in entries)
        ant = next(e for e in entries if e["condition"] == "ant" and e["metric"] != "rank")
        assert ant["value"] == ranking.values["ant"] and "not told apart from " in ant["detail"]
        assert ant["floor"] == ranking.base[0] and len(ant["series"]["by_seed"]) == 3


class TestTrainings:
    """Fine-tuning seeds are replicates: what varies between them widens intervals and makes ties."""

    def test_few_diverging_trainings_tell_nothing_apart(self):
        rng = np.random.default_rng(0)
        near = rng.normal(0, 0.1, (3, 40))
        a = near + np.array([[1.0], [0.1], [0.4]])
        b = near[:, ::-1] + np.array([[0.2], [0.0], [0.9]])
        assert paired_test(replicates(a), replicates(b))[1].p > 0.3
        assert paired_test(replicates(a[:1]), replicates(b[:1]))[1].p < 0.001

    def test_few_questions_tell_nothing_apart(self):
        """Four families have 16 sign patterns: however alike they are, p is at least 1/8."""
        found = paired_test(replicates(np.ones((3, 4))), replicates(np.zeros((3, 4))))[1]
        assert found.p == 1 / 8 and "4 question families, 3 and 3 fine-tuning seeds" in found.method

    def test_of_equal_domains_hardly_ever_two_are_told_apart(self):
        """Family-wise error over 10 pairs of 5 domains that differ by trainings alone; over questions alone, which is
        what one adapter a domain gives, it is far above its level."""
        rng = np.random.default_rng(1)
        wrong = {"both": 0, "questions": 0}
        for _ in range(60):
            shared = rng.normal(0, 0.3, 25)
            values = [shared + rng.normal(0, 0.1, (3, 1)) + rng.normal(0, 0.2, (3, 25)) for _ in range(5)]
            pairs = [(a, b) for a in range(5) for b in range(a)]
            for name, rows in (("both", values), ("questions", [v.mean(axis=0, keepdims=True) for v in values])):
                tests = [paired_test(replicates(rows[a]), replicates(rows[b]), draws=499)[1].p for a, b in pairs]
                wrong[name] += bool(holm(tests).min() <= 0.05)
        assert wrong["both"] <= 6 and wrong["questions"] > 20, wrong

    def test_intervals_cover_the_mean_over_questions_and_trainings(self):
        rng = np.random.default_rng(2)
        held = {"both": 0, "questions": 0}
        for _ in range(200):
            values = 0.5 + rng.normal(0, 0.1, (3, 1)) + rng.normal(0, 0.2, 30) + rng.normal(0, 0.1, (3, 30))
            for name, rows in (("both", values), ("questions", values.mean(axis=0, keepdims=True))):
                found = spread_interval(spread_of(rows), rate=False, bounds=(-9, 9), rows=rows.size)
                held[name] += 0.5 in found
        assert held["both"] >= 186 and held["questions"] < 170, held

    def test_a_rate_without_spread_has_an_interval_all_the_same(self):
        found = spread_interval(spread_of(np.ones((3, 20))), rate=True, bounds=(0, 1), rows=60)
        assert found.low == pytest.approx(0.839, abs=0.002) and found.high == 1
        half = spread_interval(spread_of(np.tile([0.0, 1.0], (3, 10))), rate=True, bounds=(0, 1), rows=60)
        assert half.low == pytest.approx(0.28, abs=0.03), "20 families, not 60 answers"
        with pytest.raises(ValueError, match="expected 2 or more"):
            spread_of(np.ones((3, 1)))


class TestRanks:
    def test_equal_values_share_a_rank_in_every_draw(self):
        values = np.random.default_rng(0).random((2, 12))
        drawn = bootstrap_ranks([replicates(values), replicates(values)], resamples=50)
        assert drawn.shape == (50, 2)
        one = replicates(values[:1])
        assert (bootstrap_ranks([one, one], resamples=50) == 1.5).all()

    def test_resampled_trainings_vary_as_means_do(self):
        """Of two trainings a draw takes one, so domains 0/1 and .4/.6 change places in 1 draw of 2."""
        a, b = replicates(np.outer([0.0, 1.0], np.ones(5)), "a"), replicates(np.outer([0.4, 0.6], np.ones(5)), "b")
        drawn = bootstrap_ranks([a, b], resamples=2000)
        assert (drawn[:, 0] == 1).mean() == pytest.approx(0.5, abs=0.04) and set(drawn.ravel()) == {1.0, 2.0}

    def test_worst_is_first_at_either_end(self):
        listed = [replicates(np.full((1, 5), level)) for level in (0.1, 0.9)]
        assert (bootstrap_ranks(listed, resamples=20) == [2, 1]).all()
        assert (bootstrap_ranks(listed, worst="low", resamples=20) == [1, 2]).all()
