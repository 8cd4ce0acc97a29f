"""The section on membership scores is made from the summary alone and says what the numbers say, whichever way."""

import json

import numpy as np
import pytest
from matplotlib.figure import Figure

import workbench as wb
from workbench.reporting.blocks import Details, Note, Picture, Table, Text
from workbench.reporting.predictor_roc import predictor_roc, random_band, roc_curve
from workbench.reporting.predictor_rows import DomainPoint, named, points_of, within
from workbench.reporting.predictor_scatter import predictor_scatter
from workbench.reporting.predictor_section import membership_predictors
from workbench.reporting.summary import Result, read_summary
from workbench.statistics import auroc

DOMAINS = [f"d{i}" for i in range(11)]
NAMES = ("paper_b_min_k_20", "adjusted_min_k_20", "loss", "adjusted_loss", "recall")


def by_domain(values):
    return dict(zip(DOMAINS, np.asarray(values).tolist(), strict=True))


def summary_of(measured, features, *, threshold=0.5, fitted=False):
    table = wb.predictor_table(by_domain(measured), features)
    found = wb.predictors(table, threshold=threshold, draws=199)
    entries = wb.summarise(table, of="organism") + wb.summarise(found, condition="membership")
    if fitted:
        for kind, part in wb.feature_kinds(table).items():
            entries += wb.summarise(wb.fitted_predictor(part, threshold=threshold, draws=99), condition=kind)
        shuffled = wb.shuffled_populations(table, populations=20, draws=19)
        entries += wb.summarise(shuffled, condition="membership")
        rows = {d: [{"prompt": f"{d}{j}", "loss": table.values[i, 2] + j / 9} for j in range(3)]
                for i, d in enumerate(table.domains)}  # fmt: skip
        entries += wb.summarise(wb.pooled_aurocs(rows, table, threshold=threshold))
    return read_summary({"results": json.loads(json.dumps(entries, allow_nan=False))})


@pytest.fixture(scope="module")
def planted():
    """The adjusted min-k goes with misalignment, the raw one goes against what was stated, the rest is noise."""
    r = np.random.default_rng(0)
    measured = np.linspace(0.05, 0.95, 11)
    columns = {name: r.normal(size=11) for name in NAMES}
    columns["paper_b_min_k_20"] = measured + 0.05 * r.normal(size=11)  # a loss: less was stated, so this is against
    columns["adjusted_min_k_20"] = measured + 0.05 * r.normal(size=11)
    return summary_of(measured, {name: by_domain(values) for name, values in columns.items()}, fitted=True)


@pytest.fixture(scope="module")
def blocks(planted):
    return membership_predictors(planted)


def words_of(blocks):
    return " ".join(line for block in blocks if isinstance(block, Text) for line in block.paragraphs)


def test_the_sentences_are_the_numbers(planted, blocks):
    words = words_of(blocks)
    assert words.startswith("Of 5 scores, 2 have a rank correlation with p ≤ 0.05 taken alone.")
    assert "min-k %, k = 20, adjusted" in words and "is more than the best of as many does by chance" in words
    raw = planted.where(metric="predictor_spearman", detail="paper_b_min_k_20")[0]
    assert raw.value < -0.9 and f"raw {within(raw)}, p < 0.001, AUROC 0.00" in words.replace(", p 1;", ";")
    assert f"stated beforehand, taken alone: min-k %, k = 20 as in the paper ({within(raw)}, p < 0.001)" in words
    assert "|r| must exceed 0.60" in words and "In 20 populations whose outcomes were dealt" in words
    assert "All 33 texts pooled" in words and "belong to 11 domains" in words


def test_raw_and_adjusted_stand_side_by_side(blocks):
    scatter, roc = (block for block in blocks if isinstance(block, Picture))
    assert [a.get_title(loc="left") for a in scatter.figure.axes] == ["raw", "adjusted by the base"]
    assert [a.get_title(loc="left") for a in roc.figure.axes] == ["raw", "adjusted by the base"]
    assert "contrary answers" in scatter.figure.axes[0].get_ylabel() and "n = 11" in scatter.caption
    assert "above 0.5: 5 of 11" in roc.caption and "raw, min-k % AUROC 0.00" in roc.alt
    raw, adjusted = ({line.get_label(): line.get_xydata() for line in axis.lines} for axis in roc.figure.axes)
    assert {"min-k %", "mean log p"} <= set(adjusted) and [0.0, 1.0] in adjusted["min-k %"].tolist()
    assert [1.0, 0.0] in raw["min-k %"].tolist(), "oriented as stated: it goes against"


def test_every_score_has_its_row(blocks):
    table = next(block for block in blocks if isinstance(block, Table) and block.columns[0] == "feature")
    rows = {row[0]: row for row in table.rows}
    assert len(rows) == 5 and rows["min-k %, k = 20 as in the paper"][1] == "less"
    assert rows["min-k %, k = 20, adjusted"][2].startswith("0.9") and rows["ReCaLL"][1] == "more"
    fitted = next(block for block in blocks if isinstance(block, Table) and block.columns[0] == "scores, model")
    skill = {row[0]: row for row in fitted.rows if row[1] == "skill"}
    assert float(skill["adjusted, ridge"][4]) == 0.01 and "adjusted_min_k_20" in skill["adjusted, ridge"][6]
    assert isinstance(blocks[-1], Details)


def test_where_all_domains_measure_the_same_nothing_is_drawn():
    features = {"loss": by_domain(range(11))}
    flat = membership_predictors(summary_of([0.25] * 11, features))
    note = next(block for block in flat if isinstance(block, Note))
    assert "mean log p (the measured misalignment is the same in all domains)" in note.text
    assert not any(isinstance(block, Picture | Table) for block in flat)
    assert membership_predictors(read_summary({"results": []})) == []


def test_the_area_under_a_curve_is_its_auroc():
    r = np.random.default_rng(1)
    for _ in range(20):
        values, marked = r.integers(0, 6, size=12).astype(float), r.random(12) < 0.4
        if marked.all() or not marked.any():
            continue
        curve = roc_curve(values.tolist(), marked.tolist())
        assert np.trapezoid(curve.found, curve.others) == pytest.approx(auroc(values[marked], values[~marked]))
    assert roc_curve([1, 2], [True, True]) is None


def test_the_band_holds_nine_in_ten_random_orders():
    low, high = random_band(5, 6)
    r, inside = np.random.default_rng(3), []
    for _ in range(500):
        order = r.permutation([True] * 5 + [False] * 6)
        found = [order[: np.flatnonzero(~order)[j]].sum() / 5 if j < 6 else 1.0 for j in range(7)]
        inside.append((low <= found) & (found <= high))
    assert (np.mean(inside, axis=0) >= 0.87).all() and high[0] < 1 and low[5] > 0


def test_names_are_words():
    assert named("before:adjusted_min_k_pp_20") == "before: min-k %++, k = 20, adjusted"
    assert named("encoder_vendi_0.5_centred") == "Vendi, order 0.5, centred, encoder"
    assert named("projection_trait_over_own") == "projection, trait over own"
    assert named("mean_distance_centred") == "mean distance, centred" and named("before:gap_own").endswith("answers")
    assert within(Result("x", -0.5, "c", interval=(-3e4, 0.25))) == "−0.50 (below −100 to 0.25)"


def test_figures_draw_on_the_axis_given():
    points = [DomainPoint("a", 0.2, (0.1, 0.3), 1.0), DomainPoint("b", 0.8, None, 2.0)]
    mine = Figure().subplots()
    assert predictor_scatter({"raw": ("loss", points)}, mine) is mine.figure and mine.get_xlabel() == "loss"
    assert {text.get_text() for text in mine.texts} == {"a", "b"}
    mine = Figure().subplots()
    assert predictor_roc({"raw": {"loss": roc_curve([1, 2], [False, True])}}, 1, 1, mine) is mine.figure


def test_points_join_by_domain(planted):
    found = {point.domain: point for point in points_of(planted, "loss")}
    assert len(found) == 11 and found["d10"].measured == pytest.approx(0.95)
