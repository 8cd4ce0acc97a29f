"""The benchmarks' own rule, on planted ratios: what is twice as slow is found to be, noise is called noise."""

from __future__ import annotations

import gc
import json
import time

import numpy as np
import pytest
from bench_modules import bench_modules

bench = pytest.fixture(scope="module")(bench_modules)


@pytest.fixture
def pairs(bench, monkeypatch):
    """With the settings of a plain run, whatever ran before."""
    monkeypatch.setattr(bench["pairs"], "SETTING", bench["clocks"].Setting())
    return bench["pairs"]


class Fake:
    """A clock for calls that say how long they take: no time passes. `jitter` is the spread of its log."""

    def __init__(self, jitter: float = 0.0, drift: float = 0.0) -> None:
        self.rng, self.jitter, self.drift, self.slow = np.random.default_rng(1), jitter, drift, 1.0
        self.order: list[str] = []

    def __call__(self, call, times) -> float:
        name, taken = call()
        self.order.append(name)
        self.slow *= 1 + self.drift
        return taken * self.slow * float(np.exp(self.rng.normal(0, self.jitter)))


def taking(taken: float, name: str = ""):
    return lambda: (name, taken)


def test_a_planted_ratio_is_found(pairs):
    ratio = pairs.paired(taking(1.0), taking(2.0), also={"other": taking(0.5)}, seconds=Fake(0.02))
    assert ratio.low <= 2 <= ratio.high and abs(ratio.median - 2) < 0.05 and ratio.high - ratio.low < 0.1
    assert abs(ratio.also["other"].median - 0.5) < 0.02
    assert ratio.pairs == 15 and ratio.quiet
    assert ratio.floor.low <= 1 <= ratio.floor.high


def test_what_burns_twice_the_cpu_is_found_to(pairs, bench):
    """The true clock: CPU seconds, in which waiting does not count."""

    def burning(taken):
        def burn():
            until = time.thread_time() + taken
            while time.thread_time() < until:
                pass

        return burn

    def twice_and_a_sleep():
        burning(0.002)()
        time.sleep(0.004)

    ratio = pairs.paired(burning(0.001), twice_and_a_sleep, least=0.004)
    assert 1.8 < ratio.median < 2.2
    assert abs(ratio.ours - 0.001) < 0.0002, "of one call, though several were made"


def test_a_machine_that_slows_down_does_not_change_the_ratio(pairs):
    """Interleaved: what comes later is slower for both."""
    ratio = pairs.paired(taking(1.0), taking(2.0), seconds=Fake(drift=0.02))
    assert abs(ratio.median - 2) < 0.05


def test_each_side_comes_first_and_follows_each_other_about_equally_often(pairs):
    clock = Fake()
    pairs.paired(taking(1.0, "ours"), taking(2.0, "peer"), pairs=18, seconds=clock, least=0)
    order = clock.order[2:]  # the first call of each finds how often it must be made
    rounds = [order[at : at + 3] for at in range(0, len(order), 3)]
    assert len(rounds) == 18 and all(sorted(one) == ["ours", "ours", "peer"] for one in rounds)
    places = [one.index("peer") for one in rounds]
    assert {places.count(place) for place in range(3)} == {6}


def test_noise_is_called_noise_after_three_times_the_pairs(pairs, bench):
    ratio = pairs.paired(taking(1.0), taking(9.0), seconds=Fake(0.5), patience=1e9)
    assert ratio.pairs == 45 and not ratio.quiet
    assert bench["lines"].Line("B0", "", ratio, gate=2.0).verdict == "too noisy", "though far above its gate"
    assert pairs.paired(taking(1.0), taking(9.0), seconds=Fake(0.5), patience=1).pairs == 15


def test_more_pairs_are_added_until_ours_agrees_with_itself(pairs):
    ratio = pairs.paired(taking(1.0), taking(2.0), seconds=Fake(0.045), pairs=15)
    assert 15 < ratio.pairs < 45 and ratio.quiet


def test_a_floor_that_is_off_by_more_than_five_percent_is_not_quiet(pairs):
    def with_floor(low, high):
        return pairs.Ratio(2, 2, 2, floor=pairs.Ratio(1, low, high))

    assert with_floor(0.951, 1.049).quiet
    assert not with_floor(0.94, 1.0).quiet and not with_floor(1.0, 1.06).quiet


def test_short_calls_are_made_often_and_the_collector_rests(pairs):
    seen = []

    def call():
        seen.append(gc.isenabled())

    def seconds(call, times):
        for _ in range(times):
            call()
        return 0.005

    pairs.paired(call, call, seconds=seconds, least=0.02, pairs=15)
    calls = len(seen)
    assert calls == 4 + 15 * 3 * 4, "twice to warm each up, then four a measurement"
    assert not any(seen[4:]) and gc.isenabled()


def test_between_is_called_before_every_measurement(pairs):
    count = []
    pairs.paired(taking(1.0), taking(1.0), seconds=Fake(), between=lambda: count.append(1))
    assert len(count) == 15 * 3


def test_the_interval_is_that_of_the_median(pairs):
    """The median of 15 lies between the 4th and the 12th value in 96.5 % of samples (exact, of any distribution); the
    bootstrap's interval covers it about as often."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        median, low, high = pairs.interval(np.exp(rng.normal(0, 0.1, 15)))
        assert low <= median <= high
        covered += low <= 1 <= high
    assert 0.88 < covered / 300 < 0.99
    values = np.arange(1.0, 16.0)
    assert pairs.interval(values) == pairs.interval(values), "the same for the same numbers"
    assert pairs.interval(values)[0] == 8 and 3 <= pairs.interval(values)[1] <= 6


@pytest.fixture
def ratio(bench):
    floor = bench["pairs"].Ratio(1.0, 0.99, 1.01)
    return bench["pairs"].Ratio(2.0, 1.9, 2.1, ours=0.5, peer=1.0, pairs=15, floor=floor)


@pytest.mark.parametrize(
    ("gate", "direction", "verdict"),
    [(1.9, ">=", "pass"), (1.95, ">=", "short"), (None, ">=", "reported"), (0.53, "<=", "pass"), (0.51, "<=", "short")],
)
def test_the_gate_is_on_the_unfavourable_end_of_the_interval(bench, ratio, gate, direction, verdict):
    """`<=` shows ours over peer: 0.5, and at worst 1 / 1.9 = 0.526."""
    line = bench["lines"].Line("B0", "", ratio, gate=gate, direction=direction)
    assert line.verdict == verdict
    shown = (2.0, 1.9, 2.1) if direction == ">=" else (0.5, 1 / 2.1, 1 / 1.9)
    assert line.shown == pytest.approx(shown)


def test_plain_values_have_verdicts_too(bench):
    def line(**more):
        return bench["lines"].Line("B12", "", **more)

    assert line(value=1.09, gate=1.1, direction="<=").verdict == "pass"
    assert line(value=1.11, gate=1.1, direction="<=").verdict == "short"
    assert line(value=float("nan"), gate=1.1, direction="<=").verdict == "short"
    assert line().verdict == "not installed"
    with pytest.raises(ValueError, match="expected direction"):
        line(direction="<")


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [
        (["pass", "reported"], 0),
        (["pass", "short", "too noisy"], 1),
        (["too noisy", "pass"], 2),
        (["not installed"], 0),
    ],
)
def test_the_worst_verdict_is_the_exit_code(bench, verdicts, code):
    assert bench["lines"].worst(verdicts) == code


@pytest.mark.parametrize(("gate", "code"), [(1.5, 0), (2.5, 1)])
def test_a_script_exits_with_its_verdict_and_leaves_its_numbers(
    bench, ratio, tmp_path, capsys, monkeypatch, gate, code
):
    monkeypatch.setattr(bench["measure"], "pin", lambda: None)  # the suite stays on both cores
    line = bench["lines"].Line("B0", "twice", ratio, gate=gate, goal=3.0, peer="slow", note="planted")
    with pytest.raises(SystemExit) as left:
        bench["measure"].main("planted", lambda quick: [line], ["--quick", "--json", str(tmp_path / "lines.json")])
    assert left.value.code == code
    printed = capsys.readouterr().out
    assert "2.00x" in printed and "[1.90, 2.10]" in printed and "1.00 [0.99, 1.01]" in printed and "planted" in printed
    document = json.loads((tmp_path / "lines.json").read_text())
    assert document["command"] == "python tests/bench/planted.py --quick"
    assert document["lines"] == [line.record()] and document["lines"][0]["ratio"] == 2.0
    assert {"device", "date", "torch", "transformers", "commit"} <= document.keys()
    assert str(tmp_path) not in json.dumps(document)


def test_a_wrong_result_is_no_verdict(bench, capsys, monkeypatch):
    monkeypatch.setattr(bench["measure"], "pin", lambda: None)

    def lines(quick):
        assert 1 == 2, "ours differs"
        yield

    assert bench["measure"].measured("planted", lines, []) == bench["measure"].BROKEN == 3
    assert "ours differs" in capsys.readouterr().err
