"""The transfer matrix from readings that are made by hand, so that every number is known."""

import numpy as np
import pytest
from conftest import chat

from workbench.behaviour.transfer_entries import transfer_entries
from workbench.interventions.transfer_matrix import transfer_matrix
from workbench.interventions.transfer_matrix_cells import Key
from workbench.interventions.transfer_matrix_result import POOLED, crossed_interval
from workbench.interventions.transfer_matrix_sweep import UNEDITED, Readings, Transfers, by_family

DOMAINS = ("sound", "color", "tint", "letter")
QUESTIONS = tuple(
    chat(f"{domain}{n}", "?", tags={"domain": domain, "family": f"{domain}-{n // 2}"})
    for domain in DOMAINS
    for n in range(8)
)
CALM = tuple(chat(f"calm{n}", "?", tags={"domain": "calm"}) for n in range(6))
NOISE = {name: np.random.default_rng(n).normal(0, 0.02, len(QUESTIONS)) for n, name in enumerate(DOMAINS)}


def readings(questions, cells):
    values = np.array([np.broadcast_to(value, len(questions)) for value in cells.values()], dtype=float)
    return Readings(tuple(questions), {key: n for n, key in enumerate(cells)}, values, {})


def into(recipient, closed, *, lost=0.0, draws=(), own=(), by="identity", domains=None, gap=0.8, operation="ablate"):
    """A recipient that each donor closes by a share of its gap; `draws` are shares that control runs close."""
    noise = NOISE.get(recipient, 0.0)
    effect = {UNEDITED: 0.1 + gap + noise}
    kept = {UNEDITED: np.linspace(0.8, 1.0, len(CALM))}
    for donor, share in closed.items():
        key = Key(donor, by, operation)
        effect[key] = effect[UNEDITED] - share * gap
        kept[key] = (1 - lost) * kept[UNEDITED]
        for n, drawn in enumerate(draws):
            twin = key._replace(control="energy_matched", draw=n)
            effect[twin], kept[twin] = effect[UNEDITED] - drawn * gap, kept[UNEDITED]
    named = {donor: donor for donor in closed} if domains is None else domains
    base = readings(QUESTIONS, {UNEDITED: 0.1})
    parts = readings(QUESTIONS, effect), readings(CALM, kept)
    return Transfers(recipient, recipient, base, *parts, named, tuple(own), "P(contrary)")


def cell(matrix, donor, recipient):
    return next(one for one in matrix.cells if (one.donor, one.recipient) == (donor, recipient))


def test_every_cell_is_the_index_of_its_donor_in_its_recipient():
    matrix = transfer_matrix([into("sound", {"color": 0.5, "tint": 0.9}, lost=0.1), into("color", {"sound": 0.25})])
    assert cell(matrix, "color", "sound").found.value == pytest.approx(0.4, abs=0.02)
    assert cell(matrix, "tint", "sound").found.closed.value == pytest.approx(0.9, abs=0.03)
    rows, columns, values = matrix.values("identity", "ablate")
    assert rows == ["color", "tint", "sound"] and columns == ["sound", "color"]
    assert np.isnan(values).sum() == 3, "what was not tried has no number"
    assert values[2, 1] == pytest.approx(0.25, abs=0.02)


def test_questions_about_the_donors_and_the_recipients_domain_are_left_out():
    """A donor may well undo its own domain: its direction is measured on the others'."""
    made = into("sound", {"color": 0.0})
    about = np.array([one.tags["domain"] in ("sound", "color") for one in QUESTIONS])
    values = made.effect.values.copy()
    values[1, about] = -5.0  # would close the gap several times
    changed = Transfers(**{**vars(made), "effect": Readings(QUESTIONS, made.effect.cells, values, {})})
    found = cell(transfer_matrix([changed]), "color", "sound")
    assert found.found.value == pytest.approx(0.0, abs=1e-9) and found.questions == 16
    assert found.found.closed.families == tuple(f"{d}-{n}" for d in ("tint", "letter") for n in range(4))


def test_a_recipient_without_a_gap_is_not_measurable_and_says_so():
    matrix = transfer_matrix([into("sound", {"color": 0.5}, gap=0.0), into("color", {"sound": 0.5})])
    found = cell(matrix, "color", "sound")
    assert (found.found is None and "cannot be told from 0" in found.why) or "less than" in found.why
    entries = transfer_entries(matrix)
    said = next(one for one in entries if one["metric"] == "transfer not measurable")
    assert said["condition"] == "color" and said["target"] == "sound" and "nothing to take a share of" in said["detail"]
    assert np.isfinite([one["value"] for one in entries]).all()
    small = transfer_matrix([into("color", {"sound": 0.5}, gap=0.2)], least=0.3)
    assert "less than the 0.3 that it takes" in small.cells[0].why


def test_few_control_draws_are_pooled_over_the_donors_of_the_recipient():
    ten = tuple(np.linspace(0, 0.2, 10))
    matrix = transfer_matrix([into("sound", dict.fromkeys(("color", "tint", "letter"), 0.5), draws=ten)])
    found = cell(matrix, "tint", "sound").found
    pooled = found.draws[f"energy_matched{POOLED}"]
    assert len(found.draws["energy_matched"]) == 10 and len(pooled) == 30 and found.p(f"energy_matched{POOLED}") is None
    many = transfer_matrix([into("sound", {"color": 0.5, "tint": 0.5}, draws=tuple(np.linspace(0, 0.2, 99)))])
    found = cell(many, "tint", "sound").found
    assert list(found.draws) == ["energy_matched"] and found.p("energy_matched") == pytest.approx(0.01)


def test_a_controls_answer_without_a_score_counts_as_the_bases():
    made = into("sound", {"color": 0.5}, draws=(0.0,))
    values = made.effect.values.copy()
    values[2, :] = np.nan
    changed = Transfers(**{**vars(made), "effect": Readings(QUESTIONS, made.effect.cells, values, {})})
    found = cell(transfer_matrix([changed]), "color", "sound").found
    assert found.draws["energy_matched"] == pytest.approx((1.0,), abs=0.02), "in favour of the control"


def test_the_mean_is_over_different_domains_beside_the_recipients_own_and_another_training():
    domains = {"own direction": "sound", "sound": "sound", "color": "color", "tint": "tint"}
    closed = {"own direction": 1.0, "sound": 0.9, "color": 0.2, "tint": 0.4}
    matrix = transfer_matrix([into("sound", closed, draws=(0.0, 0.1), own=["own direction"], domains=domains)])
    assert [one.kind for one in matrix.cells] == ["own", "same domain", "other", "other"]
    mean = matrix.overall("identity", "ablate")
    assert mean.value == pytest.approx(0.3, abs=0.02) and mean.pairs == 2
    assert mean.own == pytest.approx(1.0, abs=0.05) and mean.same == pytest.approx(0.9, abs=0.05)
    assert mean.draws["energy_matched"] == pytest.approx((0.0, 0.1), abs=0.01) and mean.above == 2
    assert matrix.overall("ridge", "ablate") is None


def test_a_fitted_map_is_compared_with_the_identity_on_the_same_pairs():
    plain = [into(name, {other: 0.5 for other in DOMAINS if other != name}) for name in DOMAINS]
    mapped = [into(name, {other: 0.8 for other in DOMAINS if other != name}, by="ridge") for name in DOMAINS]
    mean = transfer_matrix([*plain, *mapped]).overall("ridge", "ablate")
    assert mean.minus_identity == pytest.approx(0.3, abs=0.02)
    assert mean.minus_interval.low <= mean.minus_identity <= mean.minus_interval.high


def test_asymmetry_is_there_minus_back_on_the_questions_of_both():
    both = [into("sound", {"color": 0.9, "tint": 0.5}), into("color", {"sound": 0.2, "tint": 0.5})]
    both.append(into("tint", {"sound": 0.5, "color": 0.5}))
    found = transfer_matrix(both).asymmetries("identity", "ablate")
    assert (found[0].first, found[0].second) == ("color", "sound") and len(found) == 3
    assert found[0].difference == pytest.approx(0.7, abs=0.03) and found[0].p < 0.01
    assert found[0].interval.low < 0.7 < found[0].interval.high
    assert min(one.p for one in found[1:]) > 0.05, "the other pairs are symmetric"
    (alone,) = transfer_matrix(both[:2]).asymmetries("identity", "ablate")
    assert found[0].p == pytest.approx(3 * alone.p), "Holm: the least of three"
    entry = next(one for one in transfer_entries(transfer_matrix(both)) if one["split"] == "transfer asymmetry")
    assert entry["condition"] == "color -> sound" and entry["test"]["p"] == pytest.approx(found[0].p)


def test_the_interval_of_crossed_pairs_is_as_wide_as_the_side_that_varies():
    donors = {(a, b): value for a, value in (("x", 0.0), ("y", 1.0), ("z", 0.5)) for b in "pq"}
    found = crossed_interval(donors)
    assert "3 donors" in found.method and found.high - found.low > 2
    assert crossed_interval({(b, a): value for (a, b), value in donors.items()}).method.count("3 recipients") == 1
    slight = {pair: value + 0.01 * (pair[1] == "p") for pair, value in donors.items()}
    assert "3 donors" in crossed_interval(slight).method, "recipients vary as well, and less"
    alone = crossed_interval({("x", "p"): 0.3})
    assert np.isinf(alone.high)


def test_families_have_one_mean_whatever_their_size():
    values = np.array([[0.0, 1.0, 1.0, 1.0]])
    questions = [chat(f"q{n}", "?", tags={"family": "ab"[n > 1]}) for n in range(4)]
    assert by_family(questions, values).values.tolist() == [[0.5, 1.0]]
    gone = by_family(questions, np.array([[0.0, np.nan, 1.0, 1.0]]))
    assert gone.values.tolist() == [[0.0, 1.0]]
    about = [chat(f"d{n}", "?", tags={"domain": "x"}) for n in range(4)]
    assert by_family(about, values, without=["x"]).names == (), "no question is left"


def test_recipients_that_were_measured_differently_are_refused():
    other = Transfers(**{**vars(into("color", {"sound": 0.5})), "measure": "score of rule:keyword"})
    with pytest.raises(ValueError, match="one measure"):
        transfer_matrix([into("sound", {"color": 0.5}), other])
    with pytest.raises(ValueError, match="none"):
        transfer_matrix([])
