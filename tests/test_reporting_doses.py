"""Sections of dose studies: planted numbers reach the page, with what stands beside them; other pages stay without."""

import numpy as np
import pytest
from judged_entries import RANKS, rank_study, trend

from workbench import reporting
from workbench.reporting import Details, Picture, Table, Text
from workbench.reporting.difference_section import differences
from workbench.reporting.dose_lines import DoseLine, dose_lines
from workbench.reporting.dose_section import dose_cells, doses
from workbench.reporting.experiment_report import experiment_blocks
from workbench.reporting.paired_differences import Gap, paired_differences
from workbench.reporting.trend_section import trends


@pytest.fixture
def summary():
    return reporting.read_summary(rank_study())


def tables(blocks):
    for block in blocks:
        if isinstance(block, Table):
            yield block
        elif isinstance(block, Details):
            yield from tables(block.content)


def headings(blocks):
    return [block.heading for block in blocks if isinstance(block, Text) and block.heading]


class TestFields:
    def test_what_stands_beside_a_number_is_read(self, summary):
        one = next(r for r in summary.results if r.condition == "rank 32" and r.modality == "text_only")
        assert (one.unscored, dict(one.reasons), one.bounds) == (3, {"refused": 3}, (0.0, 1.0))
        assert one.companions == {"coherent": 0.9, "relevance": None}
        gap = next(r for r in summary.results if " - " in r.condition)
        assert gap.test == reporting.Tested(0.001, "sign flips") and gap.dropped == 0
        assert summary.question == "Does it spread further with rank?" and not summary.whole

    def test_a_test_without_a_p_is_none(self):
        rows = [trend(0.5, None, split="s", modality="m")]
        assert reporting.read_summary({"results": rows}).results[0].test is None


class TestDoses:
    def test_every_line_has_its_doses_seeds_and_base(self, summary):
        cell = dose_cells(summary)["organism", "image questions", "multimodal"]
        assert cell.of == "rank" and cell.line.doses == list(RANKS) and cell.line.base == 0.01
        assert cell.line.values.tolist() == [0.05, 0.25, 0.5] and len(cell.line.seeds) == 2 * len(RANKS)

    def test_rates_intervals_companions_and_bounds_are_on_the_page(self, summary):
        blocks = doses(summary)
        assert headings(blocks) == ["Contrary answers by rank"]
        first, beside = tables(blocks)
        row = next(row for row in first.rows if row[0] == "image questions, multimodal")
        assert [str(cell).replace("\u00a0", " ") for cell in row[1:]] == [
            "1 % (−4–6 %)", "5 % (0–10 %)", "25 % (20–30 %)", "50 % (45–55 %)",
        ]  # fmt: skip
        told = [str(cell).replace("\u00a0", " ") for cell in beside.rows[1]]
        assert "coherent 90 %; relevance not judged" in told and "0 to 1 (3 refused)" in told

    def test_a_summary_without_doses_has_no_such_section(self):
        plain = reporting.read_summary({"results": [trend(0.5, 0.1, split="s", modality="m")], "question": "q"})
        assert doses(plain) == [] and differences(plain) == []

    def test_scores_are_no_per_cent(self):
        study = rank_study()
        for one in study["results"]:
            if one["metric"] == "organism" and " - " not in one["condition"]:
                one |= {"value": 100 * one["value"], "bounds": [0.0, 100.0], "metric": "paper_a"}
                one["interval"] = [100 * end for end in one["interval"]]
        row = next(iter(tables(doses(reporting.read_summary(study))))).rows[-1]
        assert row[-1] == "50 (45 to 55)"


class TestTrendsAndDifferences:
    def test_trends_are_counted_after_holm(self):
        """Three trends at p = 0.03 each: corrected 0.09."""
        rows = [trend(0.9, 0.001, split=f"early {n}", modality="m") for n in range(2)]
        rows += [trend(-0.9, 0.001, split="down", modality="m")]
        rows += [trend(0.9, 0.03, split=f"late {n}", modality="m") for n in range(3)]
        words = trends(reporting.read_summary({"results": rows, "question": "q"}))[0].paragraphs[0]
        assert words.startswith("Of 6 trends, 2 rise and 1 fall") and "for the other 3 no trend is shown" in words

    def test_differences_from_the_base_have_no_second_figure(self, summary):
        blocks = differences(summary)
        (picture,) = [block for block in blocks if isinstance(block, Picture)]
        assert "multimodal − text only" in picture.alt and "base" not in picture.alt
        (table,) = tables(blocks)
        assert len(table.rows) == 3 * len(RANKS)  # two lines against the base, and seen against not seen


class TestPages:
    def test_a_study_has_its_own_sections_and_no_lines_of_what_is_missing(self, summary, tmp_path):
        found = headings(experiment_blocks(summary))
        assert found == [
            "Contrary answers by rank", "Trends over doses", "Paired differences", "Limits",
            "Where the numbers come from",
        ]  # fmt: skip
        page = reporting.report(rank_study(), tmp_path / "page.html").read_text()
        assert "<title>Does it spread further with rank?</title>" in page and "Not in this run" not in page

    def test_the_whole_path_still_says_what_is_missing(self):
        bare = reporting.read_summary({"results": [], "question": "q", "whole": True})
        assert str(experiment_blocks(bare)).count("Not in this run:") >= 8


class TestFigures:
    def test_each_draws_alone_and_into_a_given_axis(self):
        from matplotlib.figure import Figure

        line = DoseLine([1.0, 2.0], np.array([0.1, 0.9]), np.array([[0.0, 0.2], [np.nan, np.nan]]), [(1.0, 0.1)], 0.05)
        mine = Figure()
        axis = mine.add_subplot()
        assert dose_lines({"text": {"seen": line, "unseen": line}}, axis) is mine
        assert [label.get_text() for label in axis.get_xticklabels()] == ["1", "2"]
        rows = {"a": Gap(0.2, (0.1, 0.3)), "b": Gap(-0.1, (-0.2, 0.1)), "c": Gap(0.1)}
        assert [gap.clear for gap in rows.values()] == [True, False, False]
        assert len(paired_differences({"one": rows, "two": rows}).axes) == 2
