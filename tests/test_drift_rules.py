"""Signals, crossings, forecasts and the stopping rule, on series whose truth is known."""

import pytest

from workbench.training.drift_rules import EarlyStop, Signal, crossing, forecasts, lead_time

LINE = [(0, -4.0), (10, -2.0), (20, 0.5), (30, 3.0)]


def table(projections, behaviours):
    rows = [
        {"step": step, "measure": "projection", "direction": "v", "site": "resid_post:1", "group": "all", "mean": value}
        for step, value in projections
    ]
    rows += [{"step": step, "measure": "behaviour", "group": "all", "mean": value} for step, value in behaviours]
    return [*rows, {"step": 0, "measure": "behaviour", "group": "b", "mean": 7.0}]


def test_a_crossing_is_interpolated_between_two_measurements():
    assert crossing(LINE) == pytest.approx(18)  # -2 + 2.5 · t/10 = 0
    assert crossing(LINE, 3.0) == 30 and crossing(LINE, 3.1) is None and crossing(LINE, -9) == 0
    down = [(step, -value) for step, value in LINE]
    assert crossing(down, falling=True) == pytest.approx(18) and crossing(down, 9, falling=True) == 0


def test_an_excursion_is_no_flip_where_it_has_to_last():
    series = [(0, -1.0), (1, 1.0), (2, -1.0), (3, 1.0), (4, 1.0)]
    assert crossing(series) == 0.5 and crossing(series, lasting=2) == 2.5 and crossing(series, lasting=3) is None


def test_the_rule_needs_patience_and_the_least_steps():
    series = [(0, 2.0), (5, 0.0), (10, 2.0), (15, 2.0), (20, 2.0)]
    signal = Signal()
    assert EarlyStop(signal, 1).stops_at(series) == 0
    assert EarlyStop(signal, 1, min_steps=1).stops_at(series) == 10
    assert EarlyStop(signal, 1, patience=2).stops_at(series) == 15
    assert EarlyStop(signal, 1, patience=2, min_steps=18).stops_at(series) == 20
    assert EarlyStop(signal, 2, patience=4).stops_at(series) is None
    assert EarlyStop(signal, 0.5, falling=True).stops_at(series) == 5
    with pytest.raises(ValueError, match="expected at least one measurement"):
        EarlyStop(signal, 1, patience=0)


def test_a_straight_line_is_forecast_exactly_from_the_past_alone():
    series = [(step, 0.5 * step - 12.0) for step in range(0, 40, 5)]
    found = forecasts(series)
    assert [one.step for one in found] == [5, 10, 15, 20], "none at or behind the flip at 24"
    assert all(one.predicted == pytest.approx(24) and one.error == pytest.approx(0, abs=1e-9) for one in found)
    later = [(step, value if step <= 20 else 99.0) for step, value in series]
    assert [one.predicted for one in forecasts(later)] == pytest.approx([24] * 4), "what comes later plays no part"


def test_a_forecast_states_its_error_or_that_there_is_none():
    series = [(0, -3.0), (1, -2.0), (2, -1.9), (3, 1.9)]
    first, second = forecasts(series, window=2)
    assert first.predicted == pytest.approx(3) and first.error == pytest.approx(3 - 2.5)
    assert second.predicted == pytest.approx(2 + 1.9 / 0.1) and second.actual == 2.5
    flat = forecasts([(0, -1.0), (1, -1.0), (2, -2.0)])
    assert [one.predicted for one in flat] == [None, None] and flat[0].actual is None and flat[0].error is None
    with pytest.raises(ValueError, match="at least 2 measurements"):
        forecasts(series, window=1)


def test_lead_time_of_a_planted_signal():
    """The projection reaches its threshold 1 at step 8, the behaviour flips at 18."""
    rows = table([(0, 0.2), (10, 1.2), (20, 2.0), (30, 2.5)], LINE)
    rule = EarlyStop(Signal("projection", site="resid_post:1"), 1.0)
    lead = lead_time(rows, rule)
    assert lead.signal_step == pytest.approx(8) and lead.flip_step == pytest.approx(18)
    assert lead.steps == pytest.approx(10) and lead.stop_step == 10 and lead.prevents
    late = lead_time(rows, EarlyStop(rule.signal, 2.2))
    assert late.steps == pytest.approx(18 - 24) and late.prevents is False
    never = lead_time(table([(0, 0.0), (10, 2.0)], [(0, -1.0), (10, -1.0)]), rule)
    assert never.flip_step is None and never.steps is None and never.prevents is None and never.stop_step == 10


def test_a_signal_that_is_not_one_series_is_refused():
    rows = table([(0, 0.2), (10, 1.2)], LINE)
    with pytest.raises(ValueError, match="names 0 rows over 0 steps: expected one row a step"):
        Signal(group="nobody").series(rows)
    twice = [*rows, {**rows[0], "site": "resid_post:2"}]
    with pytest.raises(ValueError, match="names 3 rows over 2 steps"):
        Signal("projection").series(twice)
    assert Signal("projection", site="resid_post:1").series(twice) == [(0, 0.2), (10, 1.2)]
    with pytest.raises(ValueError, match="column 'p_contrary' is empty at step 0"):
        Signal(value="p_contrary").series(rows)
