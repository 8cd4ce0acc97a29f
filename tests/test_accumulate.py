"""The accumulator against float64 numpy on the same rows: means, halves, scatters, lengths, group by group."""

import numpy as np
import pytest
import torch
from made_forwards import SITES, outlying, shown, tokens_of

from hooks import accumulate
from hooks.accumulate import BINS, OCTAVES, STEPS, Accumulator

D, PROMPTS, SPLITS, GROUPS = 40, 24, 6, 3
LENGTHS = [3 + n % 7 for n in range(PROMPTS)]
GROUP = np.array([(0, 0, 0, 1, 0, 2)[n % 6] for n in range(PROMPTS)])
HALF = np.random.default_rng(4).random((PROMPTS, SPLITS)) < 0.5
UNITS = [range(0, 7), range(7, 8), range(8, 24)]


def forwards(dtype=torch.float32, seed=0, spread=6.0):
    """Residuals {site: [row, pos, D]} and tokens of each unit; groups lie far apart in a few dimensions."""
    out = []
    for number, unit in enumerate(UNITS):
        tokens = tokens_of([LENGTHS[n] for n in unit])
        resid = {}
        for place, site in enumerate(SITES):
            rows = outlying(tokens.position.numel(), D, seed + 10 * number + place, spread).reshape(len(unit), -1, D)
            rows[:, :, 3] += 30 * GROUP[list(unit)][:, None]
            resid[site] = torch.from_numpy(rows).to(dtype)
        out.append((np.array(unit), tokens, resid))
    return out


def accumulated(units, *, scope="all", early=False, acc=None, **options):
    acc = acc or Accumulator(SITES, D, GROUPS, scope=scope, splits=SPLITS, **options)
    for unit, tokens, resid in units:
        shown(acc.keeps(GROUP[unit], HALF[unit], tokens if early else None), resid, tokens)
        acc.fold([f"p{n}" for n in unit])
    return acc


def gathered(units, site, scope="all", mean=False):
    """The same rows in float64: values, and the prompt of each."""
    values, prompts = [], []
    for unit, _, resid in units:
        for row, prompt in enumerate(unit):
            inside = {"all": slice(1, LENGTHS[prompt]), "last": slice(LENGTHS[prompt] - 1, LENGTHS[prompt])}[scope]
            rows = resid[site][row, inside].double().numpy()
            rows = rows.mean(axis=0, keepdims=True) if mean else rows
            values.append(rows)
            prompts += [prompt] * len(rows)
    return np.concatenate(values), np.array(prompts)


def within(state, index, cells=None):
    """Scatter about the groups' means, of one cell (default: of all groups), from the sums about pilots."""
    counts = np.array([state["norms"][index, g].sum() for g in range(GROUPS)])
    scatter, chosen = state["scatter"][index].sum(axis=0), range(GROUPS)
    if cells is not None:
        scatter, chosen = state["scatter"][index, cells], [cells]
    off = state["sums"][index] / np.maximum(counts, 1)[:, None]
    return scatter - sum(counts[g] * np.outer(off[g], off[g]) for g in chosen)


def exact_scatter(values, groups, chosen=range(GROUPS)):
    parts = [values[groups == g] - values[groups == g].mean(axis=0) for g in chosen if (groups == g).any()]
    return sum(part.T @ part for part in parts)


@pytest.mark.parametrize("early", [False, True], ids=["tokens of the forward", "tokens known before"])
@pytest.mark.parametrize("mean", [False, True], ids=["positions", "means"])
@pytest.mark.parametrize("scope", ["all", "last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_sums_are_those_of_float64(dtype, scope, mean, early):
    units = forwards(dtype)
    state = accumulated(units, scope=scope, mean=mean, cells=[0] * GROUPS, early=early).state()
    near = 1e-4 if mean else 1e-5  # a float32 mean near 400 is rounded by 3e-5, beside a spread of 2
    for index, site in enumerate(SITES):
        values, prompts = gathered(units, site, scope, mean)
        spread = values.std(axis=0)
        for g in range(GROUPS):
            mine = values[GROUP[prompts] == g]
            pilot = state["pilot"][index, g]
            assert np.abs((state["sums"][index, g] - (mine - pilot).sum(axis=0)) / len(mine) / spread).max() < near
            assert state["norms"][index, g].sum() == len(mine)
            assert state["energy"][index, g] == pytest.approx(np.square(mine - pilot).sum(), rel=near)
            for split in range(SPLITS):
                first = values[(GROUP[prompts] == g) & HALF[prompts, split]]
                off = state["halves"][index, g, split] - (first - pilot).sum(axis=0)
                assert np.abs(off / spread).max() < near * max(1, len(first))
        exact = exact_scatter(values, GROUP[prompts])
        size = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
        assert np.abs((within(state, index) - exact) / size).max() < near


def test_pitfall_11_raw_float32_sums_fail_where_these_do_not():
    """Two dimensions at 400 and -150 with a spread of .3: the one-pass formula loses a large part of the variance."""
    units = forwards(spread=0.3)
    values, prompts = gathered(units, SITES[0])
    raw = values.astype(np.float32)
    mean = raw.mean(axis=0, dtype=np.float32)
    naive = np.diag((raw.T @ raw) / np.float32(len(raw)) - np.outer(mean, mean))
    exact = values.var(axis=0)
    ours = accumulated(units, cells=[0] * GROUPS).state()
    between = sum(
        (GROUP[prompts] == g).sum() * (values[GROUP[prompts] == g].mean(axis=0) - values.mean(axis=0)) ** 2
        for g in range(GROUPS)
    )
    found = (np.diag(within(ours, 0)) + between) / len(values)
    assert np.abs(naive / exact - 1).max() > 0.1
    assert np.abs(found / exact - 1).max() < 1e-5


def test_half_precision_rows_that_stay_in_half_precision(monkeypatch):
    """As on a GPU, with many rows a prompt: a pilot that makes the differences exact keeps variances to 2e-5, where the
    mean of the rows as a pilot, rounded, would not."""
    monkeypatch.setattr(accumulate, "_narrow", lambda rows, points: True)
    n = 4096
    rows = torch.from_numpy(outlying(n, 128, spread=3.0)).bfloat16()
    values = rows.double().numpy()
    exact = values.var(axis=0)
    tokens = tokens_of([65] * 16)

    def error():
        acc = Accumulator(SITES[:1], 128, 1, scope="all", cells=[0])
        for part in rows.reshape(4, 16, 64, 128):
            resid = torch.cat([torch.zeros(16, 1, 128, dtype=torch.bfloat16), part], dim=1)
            shown(acc.keeps(np.zeros(16, int), np.zeros((16, 0), bool)), {SITES[0]: resid}, tokens)
            acc.fold([""] * 16)
        state = acc.state()
        off = state["sums"][0, 0] / n
        assert np.abs((state["pilot"][0, 0] + off - values.mean(axis=0)) / np.sqrt(exact)).max() < 5e-3
        return np.abs((np.diag(state["scatter"][0, 0]) / n - off**2) / exact - 1).max()

    assert error() < 2e-5
    plain = accumulate._pilot
    monkeypatch.setattr(accumulate, "_pilot", lambda rows, narrow: plain(rows, False))
    assert error() > 1e-4, "the meta-test"


def test_each_group_has_its_own_scatter_where_asked():
    units = forwards()
    state = accumulated(units, cells=range(GROUPS)).state()
    values, prompts = gathered(units, SITES[1])
    for g in range(GROUPS):
        exact = exact_scatter(values, GROUP[prompts], [g])
        size = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
        assert np.abs((within(state, 1, g) - exact) / size).max() < 1e-5


def test_a_sketch_leaves_out_no_more_than_its_slack():
    units = forwards()
    whole = accumulated(units, cells=[0, 0, 1]).state()
    state = accumulated(units, cells=[0, 0, 1], rank=6).state()
    assert state["rows"].shape == (2, 2, 12, D) and "scatter" not in state
    for index in range(2):
        for cell in range(2):
            rows = state["rows"][index, cell, : state["filled"][index, cell]]
            off = np.linalg.eigvalsh(whole["scatter"][index, cell] - rows.T @ rows)
            rounding = 1e-5 * np.abs(whole["scatter"][index, cell]).max()
            assert -rounding < off[0] and off[-1] < state["slack"][index, cell] + rounding
            assert state["slack"][index, cell] < 0.2 * np.trace(whole["scatter"][index, cell])


def test_differences_are_taken_row_by_row():
    """Rows of one forward minus those of another of the same batch; equal ones give exact zeros."""
    base, tuned = forwards(), forwards(seed=500)
    for (_, _, left), (_, _, right) in zip(tuned, base, strict=True):
        left[SITES[1]] = right[SITES[1]].clone()
    acc = Accumulator(SITES, D, GROUPS, scope="all", splits=SPLITS, cells=[0] * GROUPS)
    for (unit, tokens, plus), (_, _, minus) in zip(tuned, base, strict=True):
        shown(acc.subtrahend(GROUP[unit]), minus, tokens)
        shown(acc.keeps(GROUP[unit], HALF[unit]), plus, tokens)
        acc.fold([f"p{n}" for n in unit])
    state = acc.state()
    values = gathered(tuned, SITES[0])[0] - gathered(base, SITES[0])[0]
    groups = GROUP[gathered(base, SITES[0])[1]]
    for g in range(GROUPS):
        found = state["sums"][0, g] + (groups == g).sum() * state["pilot"][0, g]
        assert np.abs(found - values[groups == g].sum(axis=0)).max() < 1e-3
    exact = exact_scatter(values, groups)
    size = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    assert np.abs((within(state, 0) - exact) / size).max() < 2e-4  # float32 differences beside 400
    assert not any(state[name][1].any() for name in ("pilot", "sums", "halves", "energy", "scatter"))
    assert state["norms"][1, :, 0].sum() == len(values), "lengths of zero lie in the first bin"


def test_the_histogram_holds_each_length_in_its_bin():
    units = forwards()
    state = accumulated(units).state()
    values, prompts = gathered(units, SITES[0])
    for g in range(GROUPS):
        lengths = np.linalg.norm(values[GROUP[prompts] == g], axis=1)
        bins = np.floor((np.log2(lengths) + OCTAVES / 2) * STEPS).astype(int)
        assert np.abs(np.bincount(bins, minlength=BINS) - state["norms"][0, g]).sum() <= 2  # float32 at a bin's edge


def test_a_run_goes_on_from_its_state_to_the_bit():
    for options in ({"cells": [0] * GROUPS}, {"cells": range(GROUPS), "rank": 3}):
        units = forwards()
        whole = accumulated(units, **options).state()
        first = {name: array.copy() for name, array in accumulated(units[:2], **options).state().items()}
        second = Accumulator(SITES, D, GROUPS, scope="all", splits=SPLITS, **options)
        second.restore(first, first["norms"].sum(axis=(0, 2)) > 0)
        later = accumulated(units[2:], acc=second).state()
        assert whole.keys() == later.keys()
        for name in whole.keys() - {"rows"}:
            assert np.array_equal(whole[name], later[name]), name
        for index, cell in np.ndindex(*whole.get("filled", np.zeros((0, 0))).shape):
            filled = whole["filled"][index, cell]
            assert np.array_equal(whole["rows"][index, cell, :filled], later["rows"][index, cell, :filled])


def test_nothing_in_a_forward_waits_for_the_device(monkeypatch):
    """With the tokens known before, no keep reads a value back: on a GPU each would be a stop of the whole queue."""
    unit, tokens, resid = forwards()[0]
    acc = Accumulator(SITES, D, GROUPS, scope="all", splits=SPLITS, cells=[0] * GROUPS)
    keeps = acc.keeps(GROUP[unit], HALF[unit], tokens)
    read = []
    for name in ("item", "tolist", "cpu", "nonzero", "__bool__", "__int__", "__float__"):
        real = getattr(torch.Tensor, name)
        monkeypatch.setattr(
            torch.Tensor,
            name,
            lambda self, *a, _real=real, _name=name, **k: (read.append(_name), _real(self, *a, **k))[1],
        )
    first = iter(keeps.items())
    shown(dict([next(first)]), resid, tokens)
    looked = len(read)  # the mask of the tokens, which lie on the CPU
    shown(dict([next(first)]), resid, tokens)
    assert len(read) == looked <= 2
    _ = bool(torch.ones(1))
    assert len(read) == looked + 1, "the meta-test"


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_prompt_that_is_not_finite_is_named(bad):
    units = forwards()
    units[2][2][SITES[1]][5, 2, 8] = bad
    with pytest.raises(ValueError, match=r"prompt 'p13' has values at resid_post:3 that are NaN or infinite"):
        accumulated(units)
    units[2][2][SITES[1]][5, 2, 8] = 0.0
    units[2][2][SITES[1]][5, 0, 8] = bad  # position 0 is not counted
    accumulated(units)


def test_sites_of_other_rows_are_refused():
    unit, tokens, resid = forwards()[0]
    resid[SITES[1]] = resid[SITES[1]][:, :2]
    acc = Accumulator(SITES, D, GROUPS, scope="all", splits=SPLITS)
    with pytest.raises(RuntimeError, match="expected one shape for all sites of a stream"):
        shown(acc.keeps(GROUP[unit], HALF[unit]), resid, tokens)


def test_a_forward_without_points_adds_nothing():
    unit, tokens, resid = forwards()[0]
    acc = Accumulator(SITES, D, GROUPS, scope="image", splits=SPLITS, cells=[0] * GROUPS)
    shown(acc.keeps(GROUP[unit], HALF[unit]), resid, tokens)
    assert acc.fold([""] * 7).tolist() == [0] * 7
    assert not any(array.any() for array in acc.state().values())
