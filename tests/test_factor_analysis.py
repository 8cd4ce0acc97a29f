"""Weight cosines, gates and write directions against the written-out ΔW."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import chat

import workbench as wb
from workbench.subspace.convergence_directions import DomainDirections
from workbench.subspace.directions import Directions
from workbench.training.factors import Factor, LoraFactors
from workbench.training.weight_shift import ModuleInputs

D_OUT, D_IN, RANK = 24, 18, 3
MODULES = ("layers.0.self_attn.o_proj", "layers.1.self_attn.o_proj")


def adapter(name: str, b: np.ndarray, a: np.ndarray, scaling: float = 0.5) -> LoraFactors:
    factors = [Factor(module, "language", layer, scaling, a[layer], b[layer]) for layer, module in enumerate(MODULES)]
    return LoraFactors(name, tuple(factors))


def adapters(groups: dict[str, int], seed: int = 0, apart: float = 0.5) -> dict[str, list[LoraFactors]]:
    """Adapters of one group differ by noise around one pair of factors."""
    rng, out = np.random.default_rng(seed), {}
    for name, count in groups.items():
        b, a = rng.standard_normal((2, D_OUT, RANK)), rng.standard_normal((2, RANK, D_IN))
        noisy = [
            (b + apart * rng.standard_normal(b.shape), a + apart * rng.standard_normal(a.shape)) for _ in range(count)
        ]
        out[name] = [adapter(f"{name}{i}", *one) for i, one in enumerate(noisy)]
    return out


def written_out(one: LoraFactors) -> np.ndarray:
    return np.concatenate([factor.delta().ravel() for factor in one])


def test_weight_cosines_are_those_of_the_written_out_changes():
    groups = adapters({"x": 2, "y": 2, "z": 2})
    found = wb.weight_cosines(groups, draws=99)
    whole = np.stack([written_out(one) for own in groups.values() for one in own])
    unit = whole / np.linalg.norm(whole, axis=1, keepdims=True)
    expected = unit @ unit.T
    assert found.names == ("x0", "x1", "y0", "y1", "z0", "z1")
    assert found.cosine == pytest.approx(expected, abs=1e-12)
    same = np.kron(np.eye(3), np.ones((2, 2))).astype(bool)
    upper = np.triu(np.ones((6, 6), dtype=bool), 1)
    assert found.within == pytest.approx(expected[same & upper].mean())
    assert found.between == pytest.approx(expected[~same & upper].mean())
    assert found.p[0, 1] == 0.01 and found.p[0, 2] > 0.05 and found.null[0] < 0 < found.null[1]


def test_domains_are_told_by_their_weights_and_unrelated_ones_are_not():
    """Of 12 adapters in 4 groups so large a difference comes once in 15,400 exchanges; of unrelated ones often."""
    assert wb.weight_cosines(adapters(dict.fromkeys("wxyz", 3)), draws=199).group_p == 1 / 200
    unrelated = [
        wb.weight_cosines(adapters(dict.fromkeys("wxyz", 3), seed, apart=50.0), draws=19).group_p for seed in range(20)
    ]
    assert sum(p <= 0.05 for p in unrelated if p is not None) <= 4


def test_scrambled_changes_are_the_null_of_unrelated_ones():
    found = [wb.weight_cosines(adapters({"x": 1, "y": 1, "z": 1}, seed), draws=99) for seed in range(40)]
    least = [one.p[np.triu_indices(3, 1)].min() for one in found]
    assert sum(p <= 0.05 for p in least) <= 6 and found[0].within is None and found[0].group_p is None


def test_the_null_knows_changes_that_write_into_all_outputs_alike():
    """Factors of one sign have cosines of .9 whatever they learned; exchanging outputs alone would leave them that."""
    rng = np.random.default_rng(0)
    size = [
        (np.abs(rng.standard_normal((2, D_OUT, RANK))), np.abs(rng.standard_normal((2, RANK, D_IN)))) for _ in "xyz"
    ]
    found = wb.weight_cosines({str(i): [adapter(str(i), *one)] for i, one in enumerate(size)}, draws=99)
    assert found.cosine[0, 1] > 0.6 and found.null[0] < -0.1 < 0.1 < found.null[1] < 0.6


def test_what_has_no_direction_is_refused():
    with pytest.raises(ValueError, match="two adapters or more"):
        wb.weight_cosines(adapters({"x": 1}))
    none = adapter("none", np.zeros((2, D_OUT, RANK)), np.ones((2, RANK, D_IN)))
    with pytest.raises(ValueError, match="changes nothing"):
        wb.weight_cosines({**adapters({"x": 1}), "none": [none]})


def test_share_written_along_a_direction():
    """By ‖ΔW‖² over the modules: one that is written along v alone, one that is written orthogonally to it."""
    v, rng = np.eye(D_OUT)[0], np.random.default_rng(0)
    b = np.zeros((2, D_OUT, RANK))
    b[0, 0], b[1, 1:] = rng.standard_normal(RANK), rng.standard_normal((D_OUT - 1, RANK))
    one = adapter("one", b, rng.standard_normal((2, RANK, D_IN)))
    directions = Directions.of([wb.Site(0), wb.Site(1)], np.stack([v, v]))
    norms = np.array([factor.norm**2 for factor in one])
    found = wb.writes_along(one, directions)
    assert found["share"] == pytest.approx(norms[0] / norms.sum()) and found["chance"] == 1 / D_OUT
    assert found["cosine"] == pytest.approx(norms[0] / norms.sum()) and found["modules"] == 2
    assert wb.writes_along(one, Directions.of([wb.Site(7)], v)) == {}


def inputs(rows: np.ndarray) -> ModuleInputs:
    each = dict.fromkeys(MODULES, rows)
    mean = dict.fromkeys(MODULES, rows.mean(axis=0))
    return ModuleInputs(mean, mean, each, tuple(f"p{i}" for i in range(len(rows))), "last")


def test_a_gate_is_the_length_of_what_is_written():
    rng = np.random.default_rng(1)
    one, rows = adapters({"x": 1})["x"][0], rng.standard_normal((20, D_IN)) + 0.7
    for gate, factor in zip(wb.lora_gates(one, inputs(rows)), one, strict=True):
        written = rows @ factor.delta().T
        first = rows @ factor.delta().T @ factor.writes()[0]
        energy = (written**2).sum(axis=1).mean()
        assert gate.constant == pytest.approx((written.mean(axis=0) ** 2).sum() / energy)
        assert gate.first == pytest.approx((first**2).mean() / energy) and gate.norm == pytest.approx(np.sqrt(energy))
        assert gate.auroc is None and gate.n == 20


def test_a_gate_that_opens_for_its_own_domain_is_told():
    """Inputs along what is read on own prompts, elsewhere on others; and the same everywhere: open for all."""
    one, rng = adapters({"x": 1})["x"][0], np.random.default_rng(2)
    own = [f"p{i}" for i in range(10)]
    closed = np.linalg.svd(one[MODULES[0]].a)[2][RANK:]
    rows = rng.standard_normal((20, D_IN - RANK)) @ closed
    rows[:10] += one[MODULES[0]].reads()[0]
    rows[10:] += 0.01 * rng.standard_normal((10, D_IN))
    families = {f"p{i}": f"f{i // 2}" for i in range(20)}
    gate = wb.lora_gates(one, inputs(rows), own, families)[0]
    assert gate.auroc == 1.0 and gate.interval is not None and gate.interval[0] > 0.5
    same = wb.lora_gates(one, inputs(np.ones((20, D_IN))), own)[0]
    assert same.constant == pytest.approx(1.0) and same.auroc == 0.5
    assert wb.lora_gates(one, inputs(np.ones((20, D_IN))), ["p0"])[0].auroc is None  # one own prompt shows no spread


def test_domain_weights_hand_each_adapter_its_own_domain():
    """The parts against their functions called by hand; a domain without a direction is left out."""
    groups = adapters({"x": 2, "y": 2, "z": 1})
    given = {one.adapter: one for own in groups.values() for one in own}
    sites, rng = (wb.Site(0), wb.Site(1)), np.random.default_rng(3)
    along = {name: [Directions.of(list(sites), rng.standard_normal((2, D_OUT))) for _ in range(2)] for name in "xy"}
    names = {domain: [one.adapter for one in own] for domain, own in groups.items()}
    found = DomainDirections(along, names, sites, {"z": "moved nothing"}, None, None, 4)
    asked = [chat(f"p{i}", "q", tags={"domain": "xy"[i % 2], "family": f"f{i // 4}"}) for i in range(20)]
    read = inputs(rng.standard_normal((20, D_IN)))
    weights = wb.domain_weights(given, found, read, asked)
    assert weights.owner == {"x0": "x", "x1": "x", "y0": "y", "y1": "y"} and "4 adapters of 2 domains" in str(weights)
    assert weights.cosines.cosine == pytest.approx(wb.weight_cosines({d: groups[d] for d in "xy"}).cosine)
    mean = Directions.of(list(sites), np.mean([one.vectors for one in along["y"]], axis=0))
    assert weights.writes["y1"] == pytest.approx(wb.writes_along(groups["y"][1], mean))
    own, families = {f"p{i}" for i in range(1, 20, 2)}, {f"p{i}": f"f{i // 4}" for i in range(20)}
    expected = wb.lora_gates(groups["y"][0], read, own, families)
    assert [(one.auroc, one.interval) for one in weights.gates["y0"]] == [(o.auroc, o.interval) for o in expected]
    assert weights.constants(read)["x1"].keys() == set(MODULES)
