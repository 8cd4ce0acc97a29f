"""The soak in its short form: a few kills and races, none of which may cost anything; and each guard taken out once,
which must cost something, or the soak looks at the wrong place."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from soak_modules import soak_modules

from stores import ActivationStore, ResultTable, publish


@pytest.fixture(scope="module")
def soak():
    with soak_modules("kills", "races", "killing", "resumed", "samples") as modules:
        yield dict(zip(("kills", "races", "killing", "resumed", "samples"), modules, strict=True))


def nothing_bad(counts: dict[str, int]) -> bool:
    return not any(n for key, n in counts.items() if key not in ("kills", "races"))


def test_kills_cost_nothing(soak, tmp_path):
    counts = soak["kills"].run(10, tmp_path, seed=1)
    assert counts["kills"] == 10 and nothing_bad(counts), counts


def test_races_cost_nothing(soak, tmp_path):
    counts = soak["races"].run(len(soak["races"].RACES), tmp_path)
    assert counts["races"] == len(soak["races"].RACES) and nothing_bad(counts), counts


# Kills without a guard


def under_its_final_name(monkeypatch):
    def written_there(content, final, tmp):
        try:
            descriptor = os.open(final, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        except FileExistsError:
            return False
        content(descriptor) if callable(content) else publish.write_at(descriptor, content, 0)
        os.close(descriptor)
        return True

    monkeypatch.setattr(publish, "publish", written_there)


def acknowledged_without_a_shard(monkeypatch):
    commit = ResultTable.commit
    monkeypatch.setattr(ResultTable, "commit", lambda self, key, *more: key == "cell3" or commit(self, key, *more))


def leftovers_stay(monkeypatch):
    monkeypatch.setattr(publish, "sweep", lambda *_, **__: [])


def rows_of_the_day(monkeypatch):
    """What is computed differs from process to process."""
    whole = ActivationStore.commit

    def drifted(self, unit, blocks, *more):
        for block in blocks.values():
            block.values[:] ^= os.getpid() % 64 + 1
        return whole(self, unit, blocks, *more)

    monkeypatch.setattr(ActivationStore, "commit", drifted)


@pytest.mark.parametrize(
    ("without", "task", "rises"),
    [
        (under_its_final_name, "capture", {"unreadable"}),
        (acknowledged_without_a_shard, "table", {"lost", "resume_differs"}),
        (leftovers_stay, "append", {"bad"}),
        (rows_of_the_day, "capture", {"resume_differs"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_kills_show_a_guard_that_is_missing(soak, tmp_path, monkeypatch, capfd, without, task, rises):
    tasks = {task: soak["kills"].TASKS[task]}
    whole = soak["resumed"].whole_runs(tasks, tmp_path)
    monkeypatch.setattr(soak["resumed"], "whole_runs", lambda *_: whole)
    without(monkeypatch)
    counts = soak["resumed"].killed_in_turn("kills", tasks, 14, tmp_path, seed=3)
    assert all(counts[key] for key in rises), counts


# Races without a guard


def the_last_one_wins(monkeypatch):
    monkeypatch.setattr(os, "link", os.replace)


def losers_are_told_true(monkeypatch):
    whole = publish.publish
    monkeypatch.setattr(publish, "publish", lambda *arguments: whole(*arguments) or True)


@pytest.mark.parametrize("without", [the_last_one_wins, losers_are_told_true], ids=lambda one: one.__name__)
@pytest.mark.parametrize("kind", ["units", "cells"])
def test_races_show_a_guard_that_is_missing(soak, tmp_path, monkeypatch, capfd, without, kind):
    races = soak["races"]
    without(monkeypatch)
    found = races.raced(races.RACES[kind], tmp_path / "race", seed=0)
    assert found["duplicates"], found


def test_appended_prompts_that_replace_a_file_are_lost(soak, tmp_path, monkeypatch, capfd):
    """Segments of a plan published by rename: the last one of a number wins."""
    races = soak["races"]
    the_last_one_wins(monkeypatch)
    found = sum((races.raced(races.RACES["append"], tmp_path / f"race{i}", seed=i) for i in range(3)), races.Counter())
    assert found["lost"] or found["unreadable"], found


# Children


def test_a_child_dies_at_the_call_that_was_drawn(soak, tmp_path):
    """Before it, behind it, or with half of a write done; what it told before stands, and nothing else."""
    killing = soak["killing"]

    def work(tell):
        for i in range(3):
            descriptor = os.open(tmp_path / f"file{i}", os.O_WRONLY | os.O_CREAT)
            os.write(descriptor, b"0123456789")
            os.close(descriptor)
            tell(f"wrote {i}")

    for how, left in (("before", b""), ("torn", b"01234"), ("behind", b"0123456789")):
        for file in tmp_path.iterdir():
            file.unlink()
        outcome = killing.forked(work, killing.Fate(call=4, how=how))
        assert outcome.killed and outcome.told == ["wrote 0"] and not outcome.error
        assert (tmp_path / "file1").read_bytes() == left and not (tmp_path / "file2").exists()
    assert killing.forked(work, killing.Fate(call=99)).told == ["wrote 0", "wrote 1", "wrote 2"]


def test_a_child_that_fails_says_why(soak):
    killing = soak["killing"]

    def fails(tell):
        tell("begun")
        raise ValueError("no such thing")

    outcome = killing.forked(fails, killing.NEVER)
    assert outcome.told == ["begun"] and not outcome.killed and "no such thing" in outcome.error


def test_a_child_dies_so_long_behind_what_it_told(soak):
    killing = soak["killing"]

    def goes_on(tell):
        for i in range(10_000):
            tell(str(i))
            killing.time.sleep(0.005)

    outcome = killing.forked(goes_on, killing.Fate(told=2, seconds=0.02))
    assert outcome.killed and 2 <= len(outcome.told) < 1000


def test_fates_are_of_every_kind(soak):
    killing, chance = soak["killing"], random.Random(0)
    drawn = [killing.Fate.drawn(chance, 50, 0.1) for _ in range(200)]
    assert {one.how for one in drawn if one.call is not None} == {"before", "behind", "torn"}
    assert len({one.call for one in drawn}) > 30 and len({one.told for one in drawn if one.seconds is not None}) == 3


def test_samples_hold_what_is_hard(soak):
    """Rows of different lengths in one unit, a stream without rows, bits that are not the same twice."""
    samples = soak["samples"]
    units = samples.planned([f"p{i}" for i in range(24)])
    blocks = [samples.blocks(unit) for unit in units]
    assert sorted(name for unit in units for name in unit.prompt_ids) == sorted(f"p{i}" for i in range(24))
    assert len({len(block["resid_post"].prompt_id) for block in blocks}) > 4
    assert any(not block["vision.resid_post"].prompt_id for block in blocks)
    assert Path(samples.__file__).parent.name == "soak"
