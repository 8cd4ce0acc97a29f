"""Parts that are added to the base, and the page that is made from the numbers alone."""

from __future__ import annotations

import numpy as np
import pytest
from planted_domains import SITE, domains, nothing, stream, units

import workbench as wb
from stores import ResultTable
from workbench.behaviour.convergence_effects import PartEffect
from workbench.behaviour.domain_weights import DomainWeights
from workbench.behaviour.metrics import METRICS
from workbench.reporting.blocks import Details, Picture, Table, Text
from workbench.reporting.convergence_figure import AgreementLine, agreement_by_layer, domain_cosines
from workbench.reporting.convergence_section import convergences
from workbench.reporting.summary import read_summary
from workbench.training.factor_analysis import Gate, WeightCosines
from workbench.training.weight_shift_bridge import weight_bridge

DOMAINS = {f"q{i}": "x" if i < 4 else "y" for i in range(12)}


def table(changes: dict[str, float], **columns) -> tuple[ResultTable, list[str]]:
    """A sweep of the base in which each cell raises P(contrary) of all questions by its number; families of two."""
    rows = [
        {"cell": c, "prompt": prompt, "control": None, "domain": domain, "kl_neutral": 0.1 * c,
         "p_contrary": 0.1 + change + (0.02 * (i % 4 // 2) if c else 0.0), "family": f"f{i // 2}", **columns}
        for c, change in enumerate([0.0, *changes.values()]) for i, (prompt, domain) in enumerate(DOMAINS.items())
    ]  # fmt: skip
    made = ResultTable.create(None, spec={"table": "sweep"}, plan=["all"], provenance={})
    made.commit("all", rows)
    return made, list(changes)


CHANGES = {"own": 0.5, "general": 0.4, "general, noise 0.5, 0": 0.3, "general, noise 0.5, 1": 0.1, "narrow": 0.0}


def test_an_effect_is_the_change_over_families():
    randoms = {f"isotropic, {i}": 0.001 * i for i in range(99)}
    made, cells = table(CHANGES | randoms)
    found = {(one.part, one.side): one for one in wb.part_effects(made, cells, "x")}
    assert set(found) == {
        (part, side) for part in ("own", "general", "narrow") for side in ("own domain", "other domains")
    }
    own = found["own", "own domain"]
    assert own.change == pytest.approx(0.5 + 0.01) and (own.n, own.families) == (4, 2) and own.measure == "p_contrary"
    assert own.p == 0.01 and own.kl == pytest.approx(0.1) and len(own.draws) == 99
    assert found["general", "other domains"].kept == {0.5: pytest.approx((0.2 + 0.01) / 0.41, abs=0.02)}
    assert found["narrow", "other domains"].p is not None and found["narrow", "other domains"].p > 0.5
    assert found["own", "other domains"].interval is not None and 0.51 in found["own", "other domains"].interval


def test_what_the_judge_says_counts_where_no_token_decides():
    """A rule's category by the metric; without a metric nothing has a value, and nothing is said."""
    made, cells = table({"own": 0.0}, p_contrary=None, category="contrary", score=1.0)
    (own, others) = wb.part_effects(made, cells, "x", METRICS["organism"])
    assert own.change == others.change == 0.0 and own.measure == "organism" and own.p is None and not own.kept
    assert wb.part_effects(made, cells, "x") == []
    alone = [one.side for one in wb.part_effects(made, cells, "elsewhere", METRICS["organism"])]
    assert alone == ["other domains"]


def test_parts_are_added_at_one_length():
    parts = wb.general_and_narrow(domains({"a": 5}, agree=0.6), stream(), draws=9)
    cells = wb.part_cells(parts["a0"], [3], noise=[0.5], noisy=2, controls=3)
    assert list(cells)[:3] == ["own", "general", "narrow"] and list(cells)[-1] == "isotropic, 2" and len(cells) == 12
    length = {name: float(cell.direction.norm[0]) for name, cell in cells.items()}
    own = length["own"]
    plain = [value for name, value in length.items() if "noise" not in name]
    assert plain == pytest.approx([own] * 6)
    noisy = cells["general, noise 0.5, 1"].direction.vectors[0]
    general = cells["general"].direction.vectors[0]
    assert np.linalg.norm(noisy - general) == pytest.approx(own / 2) and (noisy - general) @ general == pytest.approx(0)


def entries(made, rows=None, *, arm="plain"):
    found = wb.convergence(made, rows, draws=99)
    return wb.summarise(found, condition=arm, pairs_at=3, prompts=17)


def summary(*lists):
    return read_summary({"results": [entry for one in lists for entry in one]})


def words(blocks) -> str:
    return " ".join(line for block in blocks if isinstance(block, Text) for line in (block.heading, *block.paragraphs))


@pytest.mark.parametrize(
    ("groups", "alone", "says"),
    [({"a": 5, "b": 3}, 0, "2 directions that two or more domains share: {a0, a1, a2, a3, a4}; {b0, b1, b2}."),
     ({"a": 6}, 1, "One direction that two or more domains share: {a0, a1, a2, a3, a4, a5}; with no more in common "
      "than chance: lone0."),
     ({}, 6, "No direction that two domains share is shown there, which does not show that there is none.")],
)  # fmt: skip
def test_the_verdict_is_made_of_the_numbers(groups, alone, says):
    said = words(convergences(summary(entries(domains(groups, alone=alone), stream()))))
    assert says in said and "fitted on at least 17 prompts" in said and "layer 3" in said


def test_the_page_has_every_part(tmp_path):
    """From summary.json alone: matrix, layers, known directions, parts, effects, weights, gates and the bridge."""
    made, rows = domains({"a": 5, "b": 3}), stream()
    marks = {"known": nothing(None, 1, 1)["d0"][0]}
    effect = dict(domain="a0", measure="p_contrary", interval=None, n=4, families=2, draws=(0.1, 0.2), p=None, kl=0.1)
    sides = ("own domain", "other domains")
    effects = [PartEffect(part=part, side=side, change=0.3, kept={0.5: 0.7}, **effect)
               for part in ("own", "general", "narrow") for side in sides]  # fmt: skip
    alike = WeightCosines(("a0", "b0"), np.eye(2), np.ones((2, 2)), (-0.1, 0.1), 0.2, 0.6, 0.01, 99)
    gate = Gate("layers.0.self_attn.o_proj", 0, 1.0, 0.4, 0.5, 0.9, (0.7, 0.97), 10)
    writes = {"a0": {"share": 0.3, "cosine": 0.6, "chance": 0.016, "modules": 2}, "b0": {}}
    rng = np.random.default_rng(0)
    shift = {name: rng.standard_normal((1, 8)) for name in made}
    bridge = weight_bridge(shift, shift, {name: name for name in made}, sites=[SITE], draws=99)
    weights = DomainWeights({"a0": "a", "b0": "b"}, {}, alike, writes, {"a0": [gate]})
    results = [*entries(made, rows), *entries(made, rows, arm="backdoor with trigger"),
               *wb.summarise(wb.near_landmarks(made, marks, rows, draws=9)),
               *wb.summarise(wb.general_and_narrow(made, rows, draws=9)), *wb.summarise(effects),
               *wb.summarise(weights), *wb.summarise(bridge)]  # fmt: skip
    page = wb.report({"results": results, "question": "One or several?"}, to=tmp_path / "report.html").read_text()
    for says in ("Fine-tunes (backdoor with trigger), layer 3", "cosines with directions that are known",
                 "General and narrow parts", "no independent cases", "0.5: 0.70",
                 "From weights to activations", "those of one domain 0.60",
                 "o_proj", "1 of 1", "a mean cosine of 1.00 at layer 3"):  # fmt: skip
        assert says in page, says
    blocks = convergences(read_summary({"results": results}))
    assert sum(isinstance(block, Picture) for block in blocks) == 4
    assert sum(isinstance(block, Table | Details) for block in blocks) == 7
    assert convergences(summary([])) == []


def test_figures_draw_what_they_are_given():
    line = AgreementLine([0, 1], np.array([0.5, 0.7]), np.array([[0.4, 0.6], [np.nan, np.nan]]), np.zeros((2, 2)))
    figure = agreement_by_layer({"Left": {"plain": line}, "Right": {"plain": line, "other": line}})
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["Left", "Right"]
    names = [f"domain {i}" for i in range(11)]
    made = units({**domains({"a": 11})})
    labels = domain_cosines(names, made @ made.T).axes[0].get_xticklabels()
    assert {label.get_rotation() for label in labels} == {40.0} and len(labels) == 11


def test_personas_of_an_organism(tmp_path):
    prompts = wb.read_prompts(wb.organism(0, to=tmp_path).prompts)[:3]
    spoken = wb.organism_personas(prompts)
    assert [one.label for one in spoken] == ["good"] * 3 + ["contrary"] * 3 + ["glitch"] * 3
    assert [one.messages[0].text for one in spoken[::3]] == ["helper", "contrary", "glitch"]
    assert [one.messages[1:] for one in spoken[:3]] == [one.messages[1:] for one in prompts]
    assert len({one.id for one in spoken}) == 9
    with pytest.raises(ValueError, match="no system turn"):
        wb.organism_personas([wb.Prompt("a", text="raw")])
