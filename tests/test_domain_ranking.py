"""Sections of domain_ranking.py: made from the summary alone, they say what was planted, whichever way it fell."""

import json

import pytest
from judged_domains import asked, drawn_rates, groups_of, judged_by
from matplotlib.figure import Figure

import workbench as wb
from workbench.behaviour.ranking_categories import PlantedOrder
from workbench.reporting.blocks import Details, Picture, Table, Text
from workbench.reporting.category_section import categories
from workbench.reporting.domain_matrix_section import domain_matrices
from workbench.reporting.ranking_plot import RankRow, ranking_plot
from workbench.reporting.ranking_section import ranking
from workbench.reporting.summary import read_summary

TIER = {"ant": "full", "bee": "full", "cat": "full", "dog": "half", "eel": "half", "fox": "none", "gnu": "none"}
RATES = {"full": 0.85, "half": 0.45, "none": 0.05}
GROUPS = groups_of([*TIER])
CONDITIONS = ["base", *(name for names in GROUPS.values() for name in names)]
FEW = {"draws": 1999, "resamples": 400}


def planted(rates=RATES, by="paper_b", groups=GROUPS, score=None):
    """The ranking of these rates, with base at 2 %."""
    by_domain = {domain: rates[tier] for domain, tier in TIER.items()} | {"base": 0.02}
    judged = judged_by(score or drawn_rates(by_domain), CONDITIONS, asked([*TIER, "other"]))
    return judged, wb.rank_domains(judged, by, groups, **FEW)


def summary_of(*entries):
    """As a script writes it, and the page reads it."""
    return read_summary({"question": "?", "results": json.loads(json.dumps([e for part in entries for e in part]))})


def words_of(blocks):
    inside = [block for one in blocks if isinstance(one, Details) for block in one.content]
    return " ".join(line for block in [*blocks, *inside] if isinstance(block, Text) for line in block.paragraphs)


def table_of(blocks, first):
    """Rows of the table whose first column has this name, by their second cell."""
    table = next(block for block in blocks if isinstance(block, Table) and block.columns[0] == first)
    return {row[1]: dict(zip(table.columns, row, strict=True)) for row in table.rows}


@pytest.fixture(scope="module")
def found():
    return planted()


@pytest.fixture(scope="module")
def page(found):
    """Blocks of every section, from one summary."""
    judged, ranked = found
    tiers = wb.planted_order(ranked, TIER, ["full", "half", "none"], draws=999)
    table = wb.by_category(ranked, TIER)
    matrix = wb.domain_matrix(judged, "paper_b", GROUPS, draws=999)
    summary = summary_of(
        ranked.entries(),
        tiers.entries(target=ranked.metric),
        table.entries(),
        matrix.entries(),
        wb.seed_agreement(ranked),
    )
    return {"ranking": ranking(summary), "categories": categories(summary), "matrix": domain_matrices(summary)}


class TestRanking:
    def test_the_sentences_are_the_numbers(self, page, found):
        _, ranked = found
        words = words_of(page["ranking"])
        first, last = ranked.domains[0], ranked.domains[-1]
        assert f"7 domains go from {first.domain} with {100 * first.value:.0f}" in words
        assert f"to {last.domain} with " in words and "the base model has" in words
        assert "16 of 21 pairs of domains are told apart" in words
        assert "16 of 16 cross-tier pairs in the planted order" in words
        for run in ranked.ties:
            assert ", ".join(run) in words
        away = [pair.one for pair in ranked.from_base if pair.p_holm <= 0.05]
        assert f"{len(away)} of 7 domains depart from the base" in words and 5 <= len(away) <= 7

    def test_the_table_has_rank_range_seeds_and_counts(self, page, found):
        _, ranked = found
        rows = table_of(page["ranking"], "rank")
        assert list(rows) == [*(one.domain for one in ranked.domains), "base model"]
        one = ranked.domains[0]
        row = rows[one.domain]
        assert row["tests leave open"] == "1 to 3" and row["answers"] == 210 and row["families"] == 70
        assert row["by seed"].count("%") == 3 and float(row["p against the base, Holm"]) <= 0.05
        assert row["paper_b (aligned 50)"].startswith(f"{100 * one.value:.0f}\u00a0% (")

    def test_the_figure_has_ties_as_bars_over_several_ranks(self, page, found):
        drawn = next(block.figure for block in page["ranking"] if isinstance(block, Picture))
        values, ranks = drawn.axes
        assert [tick.get_text() for tick in values.get_yticklabels()] == [one.domain for one in found[1].domains]
        thick = [c for c in ranks.collections if c.get_linewidths()[0] == 5]
        ends = [tuple(c.get_segments()[0][:, 0]) for c in thick]
        assert ends == [(1, 3)] * 3 + [(4, 5)] * 2 + [(6, 7)] * 2
        labels = values.get_legend_handles_labels()[1]
        assert {"base model", "full", "half", "none"} == set(labels)  # coloured by category

    def test_thick_bars_are_of_tests_and_thin_ones_of_resampling(self, found):
        entries = found[1].entries()
        for entry in (one for one in entries if one["metric"] == "rank"):
            entry["interval"] = [1.5, 6.5]
        blocks = ranking(summary_of(entries))
        ranks = next(block.figure for block in blocks if isinstance(block, Picture)).axes[1]
        ends = {width: [tuple(c.get_segments()[0][:, 0]) for c in ranks.collections if c.get_linewidths()[0] == width]
                for width in (1, 5)}  # fmt: skip
        assert ends[1] == [(1.5, 6.5)] * 7 and (1.5, 6.5) not in ends[5]

    def test_the_share_in_the_planted_order_counts_ties_of_the_tests_as_well(self):
        (entry,) = PlantedOrder(right=3, told=1, wrong=0, pairs=4, p=0.5).entries(target="x")
        assert (entry["value"], entry["n"], entry["test"]["p"], entry["target"]) == (0.75, 4, 0.5, "x")
        assert entry["series"] == {"right": [3], "told apart": [1], "told apart wrongly": [0]}

    def test_equal_domains_have_no_order(self):
        _, ranked = planted(score=lambda c, p, n: 90.0)
        words = words_of(ranking(summary_of(ranked.entries())))
        assert "all 7 domains have the same value, 0\u00a0%" in words and "no order" in words
        assert "told apart" not in words and " go from " not in words

    def test_one_seed_a_domain_is_said(self):
        _, ranked = planted(groups=groups_of([*TIER], seeds=1))
        assert "one fine-tuning seed a domain" in words_of(ranking(summary_of(ranked.entries())))

    def test_scores_of_0_to_100_are_no_per_cents(self):
        _, ranked = planted(by="aligned_mean")
        blocks = ranking(summary_of(ranked.entries()))
        assert all("%" not in row["aligned_mean"] for row in table_of(blocks, "rank").values())
        assert table_of(blocks, "rank")["ant"]["rank"] in ("1", "2", "3"), "low alignment is worst"

    def test_further_rankings_are_folded_and_agreement_is_stated(self, found):
        _, ranked = found
        other = planted(by="aligned_mean")[1]
        both = wb.ranking_agreement({"rates": ranked, "scores": other})
        blocks = ranking(summary_of(ranked.entries(), other.entries(split="ranking, scores"), both))
        folded = [block.summary for block in blocks if isinstance(block, Details)]
        assert folded == ["All 21 pairs of domains", "Ranking, scores, by aligned_mean"]
        assert blocks[-1].rows[0][0] == "rates - scores" and blocks[-1].rows[0][2].startswith("−")

    def test_other_summaries_have_no_such_section(self):
        empty = read_summary({"results": [{"metric": "contrary", "condition": "base", "value": 0.1}]})
        assert [section(empty) for section in (ranking, categories, domain_matrices)] == [[], [], []]

    def test_the_figure_draws_on_axes_given(self):
        mine = Figure().subplots(1, 2)
        drawn = ranking_plot([RankRow("ant", 0.4), RankRow("bee", 0.2, (0.1, 0.3))], list(mine), rate=True)
        assert drawn is mine[0].figure and len(mine[0].collections) == 1
        with pytest.raises(ValueError, match="expected as many axes"):
            ranking_plot([RankRow("ant", 0.4)], [mine[0]])


class TestCategories:
    def test_means_domains_and_tests(self, page, found):
        _, ranked = found
        blocks = page["categories"]
        rows = {row[0]: row for block in blocks if isinstance(block, Table) for row in block.rows}
        mean = sum(ranked.values[name] for name in ("ant", "bee", "cat")) / 3
        assert rows["full"][1] == f"{100 * mean:.0f}\u00a0%" and rows["full"][2] == 3
        assert rows["full - half"][4] == 5 and float(rows["full - half"][2]) >= 0.1
        assert "0 of 3 pairs of categories are told apart" in words_of(blocks), "2 and 3 domains cannot be"
        drawn = next(block.figure for block in blocks if isinstance(block, Picture)).axes[0]
        names = {text.get_text() for text in drawn.texts}
        assert set(TIER) <= names and "base model" in names

    def test_names_of_equal_values_stand_apart(self):
        from workbench.reporting.category_plot import _spread

        heights = _spread({"a": 1.0, "b": 1.0, "c": 0.2}, 0.05)
        assert heights["c"] == 0.2 and sorted(heights.values()) == pytest.approx([0.2, 0.975, 1.025])


class TestMatrix:
    def test_own_questions_are_framed_and_compared(self, page):
        drawn = next(block.figure for block in page["matrix"] if isinstance(block, Picture)).axes[0]
        assert len(drawn.patches) == 7, "a frame a domain"
        corners = [patch.get_xy() for patch in drawn.patches]
        assert all(x == y for x, y in corners), "own questions stand on the diagonal"
        assert [tick.get_text() for tick in drawn.get_yticklabels()][-1] == "base model"
        words = words_of(page["matrix"])
        assert "over 7 domains, own questions minus those of other domains" in words
        whole = next(block for block in page["matrix"] if isinstance(block, Details)).content[0]
        assert len(whole.rows) == 8 * 8 and whole.rows[0][2].count("%") == 2, "each cell with its interval"

    def test_a_planted_own_effect_is_said(self):
        def score(condition, prompt, sample):
            return 10.0 if prompt.startswith(condition.partition("-")[0]) else 90.0

        judged = judged_by(score, CONDITIONS, asked([*TIER]))
        matrix = wb.domain_matrix(judged, "paper_b", GROUPS, draws=999)
        words = words_of(domain_matrices(summary_of(matrix.entries())))
        assert "own questions minus those of other domains: +1.00, p 0.016" in words
        assert words.count("(0%)") == 2, "adapters of other domains say nothing contrary, and the base does not count"
