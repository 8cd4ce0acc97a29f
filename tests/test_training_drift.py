"""The chain behind training_drift.py: what is written and learned while an adapter trains, runs under watch, forecasts
from what was there, a rule's price, and the page."""

import json
import runpy
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import LONG, chat
from test_drift import RUN, drift
from tiny_training import ROWS, same, saved_base

from hooks.load import load_model
from stores import ResultTable
from workbench.behaviour.summary import summarise
from workbench.interventions.drift_runs import Retentions, WatchedRun, lead_times, retention, retentions, watched_runs
from workbench.interventions.generate import generate
from workbench.organisms import organism
from workbench.reporting.drift_section import drift as drift_section
from workbench.reporting.summary import read_summary
from workbench.training import train_lora
from workbench.training.datasets import NO_LOSS, encoded_rows, with_labels
from workbench.training.drift_forecasts import OTHERS, OWN_LINE, compared_forecasts
from workbench.training.drift_rules import EarlyStop, Signal, forecasts

PLAIN = [chat(f"p{n}", "say " * (1 + n), label="ab"[n % 2]) for n in range(4)]  # no tags
FEW = {**RUN, "steps": 3, "dropout": 0.3}


@dataclass(frozen=True)
class Verdict:
    category: str
    score: float | None


class Counts:
    """Scores an answer by its length; none where it is empty or of the prompt p3."""

    name, revision = "rule:length", "1"

    def score(self, prompt, text, *, finished=True):
        return Verdict("scored", None if prompt.id == "p3" else float(len(text)))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return saved_base(tmp_path_factory.mktemp("base") / "llama")


def test_answers_and_task_are_those_of_the_saved_adapter(base, tmp_path):
    watch = drift(tmp_path / "d", questions=PLAIN, judge=Counts(), max_new_tokens=5, task=ROWS[:3])
    adapter = train_lora(base, ROWS, to=tmp_path / "a", watch=watch, **FEW)
    assert same(adapter, train_lora(base, ROWS, to=tmp_path / "b", **FEW)), "the training does not notice"
    table = ResultTable.open(tmp_path / "d")
    assert table.rows(measure="behaviour") == [], "no tags, nothing to read at a token"
    for step, model in ((0, load_model(base)), (3, load_model(base, adapter=adapter))):
        lengths = [float(len(one.text)) for one in generate(model, PLAIN, max_new_tokens=5)]
        found = {row["group"]: row for row in table.rows(measure="answers", step=step)}
        assert found["all"]["mean"] == pytest.approx(np.mean(lengths[:3])) and found["all"]["n"] == 3
        assert found["all"]["unscored"] == 1 and found["b"]["n"] == 1 and found["b"]["mean"] == lengths[1]
        losses = []
        for row in encoded_rows(ROWS[:3], model.encoder):
            batch = model.encoder.collate([row])
            inputs = with_labels(batch)
            labels = inputs.pop("labels")[0, 1:]
            answer = (labels != NO_LOSS) & batch.tokens.mask("response")[0, 1:]
            with torch.no_grad():
                scores = model.module(**inputs).logits[0, :-1].log_softmax(-1)
            losses.append(-float(scores[torch.arange(len(labels)), labels.clamp_min(0)][answer].mean()))
        (task,) = table.rows(measure="task", step=step)
        assert task["mean"] == pytest.approx(np.mean(losses), abs=1e-4) and task["n"] == 3
    assert Signal("answers").series(table.rows())[0][0] == 0


def test_a_judge_that_compares_is_refused_and_settings_count(tmp_path):
    class Pairwise(Counts):
        compares = True

    with pytest.raises(ValueError, match="expected a judge of single answers"):
        drift(tmp_path, judge=Pairwise())
    plain, judged = drift(tmp_path), drift(tmp_path, judge=Counts())
    assert set(judged.describe()) - set(plain.describe()) == {"judge"}


def test_runs_under_watch_resume_and_never_foresee_themselves(base, tmp_path):
    watch = drift(tmp_path / "nowhere", task=ROWS[:2])
    options = dict(seeds=[1, 2], progress=False, **FEW)
    scout = train_lora(base, ROWS, to=tmp_path / "scout", seed=2, **FEW)
    with pytest.raises(ValueError, match="come from a fine-tune with seed 2, and so does one of the runs"):
        watched_runs(base, {"harmful": ROWS}, watch, to=tmp_path / "r", scout=scout, **options)
    with pytest.raises(ValueError, match="1 runs are not finished"):
        watched_runs(base, {"harmful": ROWS}, watch, to=tmp_path / "r", part="1/2", **options)
    runs = watched_runs(base, {"harmful": ROWS}, watch, to=tmp_path / "r", **options)
    assert list(runs) == ["harmful-seed1", "harmful-seed2"] and not (tmp_path / "nowhere").exists()
    assert same(runs["harmful-seed2"].adapter, scout) and not same(runs["harmful-seed1"].adapter, scout)
    at_once = EarlyStop(Signal("task"), threshold=-1.0, min_steps=1)
    stopped = watched_runs(base, {"stopped": ROWS}, watch, to=tmp_path / "s", until=at_once, **options)
    assert {run.last_step for run in runs.values()} == {3} and {run.last_step for run in stopped.values()} == {2}
    again = watched_runs(base, {"stopped": ROWS}, watch, to=tmp_path / "s", until=at_once, **options)
    assert [run.adapter for run in again.values()] == [run.adapter for run in stopped.values()]


def rows_of(behaviour, projection, task=None):
    """A drift table's rows from values every 2 steps."""
    out = []
    for n, (b, p) in enumerate(zip(behaviour, projection, strict=True)):
        out.append({"step": 2 * n, "measure": "behaviour", "group": "all", "contrary_rate": b, "n": 50, "sd": 1.0})
        place = {"direction": "scout", "site": "resid_post:1", "layer": 1}
        out.append(
            {"step": 2 * n, "measure": "projection", "group": "all", "moved": p, "moved_sd": 1.0, "n": 9} | place
        )
        loss = 2.0 - n / len(behaviour) if task is None else task[n]
        out.append({"step": 2 * n, "measure": "task", "group": "all", "mean": loss, "sd": 0.1, "n": 5})
    return out


RATE = Signal("behaviour", value="contrary_rate")
MOVED = Signal("projection", site="resid_post:1", direction="scout", value="moved")
LINE = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
JUMPS = {  # flips at 7, 9 and 11; the projection is then at 3.5, 4.5 and 5.5
    "harmful-seed0": rows_of([0, 0, 0, 0, 1, 1, 1, 1], LINE),
    "harmful-seed1": rows_of([0, 0, 0, 0, 0, 1, 1, 1], LINE),
    "harmful-seed2": rows_of([0, 0, 0, 0, 0, 0, 1, 1], LINE),
}


def test_ways_of_forecasting_are_compared_by_hand():
    found = {one.by: one for one in compared_forecasts(JUMPS, RATE, {"projection": MOVED}, flips_at=0.5, lasting=2)}
    assert list(found) == [OWN_LINE, "projection", OTHERS]
    assert found[OTHERS].errors == pytest.approx({"harmful-seed0": 3, "harmful-seed1": 0, "harmful-seed2": 3})
    # Levels of the others: 5, 4.5, 4. The last run is already beyond its own at steps 8 and 10.
    assert found["projection"].errors == pytest.approx({"harmful-seed0": 3, "harmful-seed1": 0, "harmful-seed2": 2.5})
    # A rate that stays at 0 foresees nothing: counted as a flip at the end, step 14.
    assert found[OWN_LINE].errors == pytest.approx({"harmful-seed0": 7, "harmful-seed1": 5, "harmful-seed2": 3})
    assert found[OWN_LINE].silent == 1 and found["projection"].silent == 0 and found[OTHERS].forecasts == 2 + 3 + 4
    assert found[OTHERS].mean == pytest.approx(2)


def test_a_forecast_knows_nothing_of_its_own_future():
    """Another projection behind the flip of a run changes no forecast of that run."""
    later = {**JUMPS, "harmful-seed0": rows_of([0, 0, 0, 0, 1, 1, 1, 1], [*LINE[:4], 90.0, 95.0, 99.0, 99.0])}
    one, other = (
        {w.by: w for w in compared_forecasts(runs, RATE, {"p": MOVED}, flips_at=0.5, lasting=2)}
        for runs in (JUMPS, later)
    )
    assert one["p"].errors["harmful-seed0"] == other["p"].errors["harmful-seed0"]
    assert one["p"].errors["harmful-seed1"] != other["p"].errors["harmful-seed1"], "what the others did counts"


def test_without_two_flips_nothing_is_compared_and_flat_series_foresee_nothing():
    alone = {"a": JUMPS["harmful-seed0"], "b": rows_of([0] * 8, LINE)}
    assert compared_forecasts(alone, RATE, {}, flips_at=0.5) == [] and summarise([]) == []
    third = 1 / 60  # a line fitted through equal values rises by a rounding
    assert [one.predicted for one in forecasts([(s, third) for s in range(0, 12, 2)], 0.5)] == [None] * 5


def test_retention_is_the_share_of_the_gain():
    whole = rows_of([0] * 5, [0] * 5, task=[2.0, 1.5, 1.2, 0.8, 1.0])
    assert [retention(whole, step) for step in (0, 4, 6, 8)] == pytest.approx([0, 0.8, 1.2, 1])
    assert retention(rows_of([0] * 2, [0] * 2, task=[1.0, 1.0]), 2) is None
    with pytest.raises(ValueError, match="step 3 was not measured"):
        retention(whole, 3)


def in_table(rows, folder, end=14):
    rows = [*rows, {"step": end, "measure": "end", "group": "all", "stopped": False}]
    rows += [{"step": s, "measure": "rotation", "group": "all", "against": "end", "delta_cosine": s / 14 - d}
             for s in range(2, 14, 2) for d in (0.0, 0.1)]  # fmt: skip
    rows += [{"step": s, "measure": "spectrum", "group": "all", "decomposed": "paired_shift_raw", "unchanged": s == 0,
              "share_1": None if s == 0 else 0.5, "n": 9, "layer": 1} for s in range(0, 16, 2)]  # fmt: skip
    table = ResultTable.create(folder, spec={"table": "drift"}, plan=["all"], provenance={})
    table.commit("all", rows)
    return table


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    """Three runs that flip, two benign ones that do not, of which one moves far: what the script adds."""
    folder = tmp_path_factory.mktemp("tables")
    calm = {"benign-seed0": rows_of([0] * 8, [0] * 8), "benign-seed1": rows_of([0] * 8, [0, 0, 0, 0, 0, 3, 3, 3])}
    runs = {
        name: WatchedRun(name.partition("-")[0], int(name[-1]), folder, in_table(rows, folder / name))
        for name, rows in {**JUMPS, **calm}.items()
    }
    rule = EarlyStop(MOVED, 2.0, patience=2)
    found = summarise(rule, words="the rule", flips_at=0.5)
    found += summarise(lead_times(runs, rule, RATE, flips_at=0.5, lasting=2), rule="the rule")
    signals = {"behaviour": RATE, "projection on the direction of the scout": MOVED, "task": Signal("task")}
    found += summarise(runs, signals=signals)
    harmful = {name: run.table.rows() for name, run in runs.items() if run.kind == "harmful"}
    ways = compared_forecasts(harmful, RATE, {"projection": MOVED}, flips_at=0.5, lasting=2)
    return found + summarise(ways) + summarise(Retentions({"a": 0.5, "b": 0.7, "c": None}), condition="stopped")


def value(entries, metric, condition):
    return next(e["value"] for e in entries if (e["metric"], e["condition"]) == (metric, condition))


def test_entries_count_runs_as_replicates(entries):
    assert value(entries, "flip_step", "harmful-seed1") == pytest.approx(9)
    assert value(entries, "stop_step", "harmful-seed1") == 6 and value(entries, "signal_step", "harmful-seed1") == 4
    assert value(entries, "alarmed_before_flip", "harmful") == 1 and value(entries, "alarmed", "benign") == 0.5
    assert value(entries, "lead_steps", "harmful") == pytest.approx(5) and value(entries, "flipped", "benign") == 0
    assert value(entries, "behaviour_at_stop", "harmful") == 0
    assert value(entries, "retention_at_stop", "harmful") == pytest.approx(3 / 7)
    assert value(entries, "mean_stop_step", "benign") == pytest.approx((14 + 12) / 2), "one is never stopped"
    for entry in entries:
        if entry["split"] == "drift event" and entry["clusters"]:
            assert entry["clusters"] == entry["n"] and "seed" not in entry["condition"]
    curve = [e for e in entries if e["condition"] == "harmful-seed0" and e["split"] == "drift"]
    assert {e["detail"] for e in curve} == {"behaviour", "projection", "task", "spectrum", "rotation"}
    moved = next(e for e in curve if e["detail"] == "projection" and e["coefficient"] == 6)
    assert moved["interval"] == pytest.approx([3 - 2.306 / 3, 3 + 2.306 / 3], abs=1e-3) and moved["n"] == 9
    assert not any(e["value"] is None for e in curve)


def test_retentions_are_against_the_run_of_the_same_seed(tmp_path):
    """Of a loss that falls evenly, stopped at step 4 and 6; a run that is not there is named."""
    tables = {n: in_table(JUMPS["harmful-seed0"], tmp_path / f"whole{n}") for n in (0, 1)}
    whole = {f"harmful-seed{n}": WatchedRun("harmful", n, tmp_path, table) for n, table in tables.items()}
    losses = dict(Signal("task").series(JUMPS["harmful-seed0"]))
    ends = {}
    for n, step in ((0, 4), (1, 6)):
        rows = [row for row in JUMPS["harmful-seed0"] if row["step"] <= step]
        ends[f"stopped-seed{n}"] = WatchedRun("stopped", n, tmp_path, in_table(rows, tmp_path / f"s{n}", end=step))
    found = retentions(ends, whole, "harmful")
    gain = losses[min(losses)] - losses[max(losses)]
    expected = {f"stopped-seed{n}": (losses[min(losses)] - losses[step]) / gain for n, step in ((0, 4), (1, 6))}
    assert found.values == pytest.approx(expected)
    with pytest.raises(KeyError, match="benign-seed0"):
        retentions(ends, whole, "benign")


def test_an_alarm_behind_the_flip_is_none_before_it(tmp_path):
    runs = {name: WatchedRun("harmful", 0, tmp_path, in_table(rows, tmp_path / name)) for name, rows in JUMPS.items()}
    late = EarlyStop(MOVED, 5.0)  # reached at step 10, the flips are at 7, 9 and 11
    found = summarise(lead_times(runs, late, RATE, flips_at=0.5, lasting=2), rule="late")
    assert value(found, "alarmed", "harmful") == 1
    assert value(found, "alarmed_before_flip", "harmful") == pytest.approx(1 / 3)


def test_the_page_says_what_was_seen_coming(entries):
    summary = read_summary({"results": json.loads(json.dumps(entries)), "question": "when?"})
    heading, picture, rules, ways = drift_section(summary)
    said = " ".join(heading.paragraphs)
    assert "in 3 of 3 harmful fine-tunes, on average at step 9" in said and "0 of 2 benign ones did" in said
    assert "stops before the flip in 3 of 3 runs" in said and "False alarms: 1 of 2 benign runs" in said
    assert rules.rows == [["the rule", "3 of 3", "5 [0.032, 10]", "6", "0", "0.43", "1 of 2"]]
    assert [row[0] for row in ways.rows] == [OWN_LINE, "projection", OTHERS] and ways.rows[0][4] == 1
    axes = picture.figure.axes
    assert len(axes) == 5 and "Flips at steps 7, 9, 11" in picture.alt
    grey = [line for line in axes[0].lines if line.get_linestyle() == "--"]
    assert len(grey) == 2, "the control runs"
    triangles = [line.get_xdata()[0] for line in axes[0].lines if line.get_marker() == "^"]
    assert sorted(triangles) == pytest.approx([7, 9, 11])
    assert drift_section(read_summary({"results": []})) == []


@LONG
def test_the_script_on_a_model_of_ones_own(tmp_path, monkeypatch):
    """The organism's base and a few of its rows as a user's files, a filler as the benign control."""
    world, few = organism(0, to=tmp_path / "files"), {}
    for name, every in {"train": 16, "train_right": 16, "prompts": 8, "questions": 8}.items():  # beside their pictures
        few[name] = getattr(world, name).with_name(f"few-{name}.jsonl")
        few[name].write_text("".join(getattr(world, name).read_text().splitlines(keepends=True)[::every]))
    own = ["--model", world.base, "--train", few["train"], "--filler", few["train_right"]]
    own += ["--prompts", few["prompts"], "--eval", few["questions"], "--to", tmp_path / "run"]
    settings = ["--seeds", 0, "--every", 5, "--rank", 2, "--alarms", 0.5]
    monkeypatch.setattr(sys, "argv", ["training_drift.py", *map(str, own + settings)])
    script = Path(__file__).resolve().parent.parent / "experiments" / "training_drift.py"
    runpy.run_path(str(script), run_name="__main__")
    results = json.loads((tmp_path / "run" / "summary.json").read_text())["results"]
    curves = [r for r in results if r["split"] == "drift"]
    assert {r["condition"] for r in curves} == {"harmful-seed0", "benign-filler-seed0"}
    behaviour = {r["coefficient"]: r for r in curves if (r["metric"], r["condition"]) == ("behaviour", "harmful-seed0")}
    assert {0, 5} < set(behaviour)
    for r in behaviour.values():
        assert r["interval"][0] <= r["value"] <= r["interval"][1] and r["n"] >= 6
    assert value(results, "flipped", "harmful") in (0, 1) and value(results, "threshold", "declared") > 0
    written = {r["condition"]: r for r in results if r["split"] == "written" and r["metric"] == "organism"}
    assert set(written) == {"base", "harmful-seed0", "benign-filler-seed0", "stopped-seed0"}
    assert (tmp_path / "run" / "figures" / "fine-tunes-under-watch.png").is_file()
