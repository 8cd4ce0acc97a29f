"""A state machine over a store: anything in any order, accidents included, and after it what was promised is there.

Hypothesis draws the steps: units are planned, committed, committed a second time with other numbers, by one writer or
by another whose view is old; a process is killed in the middle of any of it; logs are lost and torn; shards are
damaged, found by verify, set aside by repair and made anew; what another store holds is merged in. The model beside it
is a few sets of keys.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import hypothesis
from counts import counted
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from recorder import Killed, Recorder
from scenes import MADE, UNIT, Activations, Results

from stores.merging import merge_stores
from stores.repairing import repair_store

STEPS, UNITS = 50, 8
_WHICH = st.integers(0, 1 << 16)


class Machine(RuleBasedStateMachine):
    """`scratch` and `progress` are set by `run`."""

    scratch: Path
    progress: Any

    def __init__(self) -> None:
        super().__init__()
        self.root = self.scratch / "store"
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir(parents=True)
        next(self.progress, None)

    @initialize(results=st.booleans(), bulk=st.booleans(), planned=st.integers(1, UNITS))
    def begun(self, results: bool, bulk: bool, planned: int) -> None:
        self.scene: Any = Results(UNITS) if results else Activations(UNITS, bulk=bulk)
        self.planned = planned
        self.there, self.lost = set[str](), set[str]()  # lost: a log promises it, and its shard is gone
        self.mine = self.theirs = self.scene.opened(self.root, planned)

    @property
    def path(self) -> Path:
        return self.root / self.scene.folder

    def key(self, which: int) -> str:
        return self.scene.keys[which % self.planned]

    # What writers do

    @rule(which=_WHICH, spoiled=st.booleans(), old=st.booleans())
    def commit(self, which: int, spoiled: bool, old: bool) -> None:
        """A unit that is there stays as it is, whatever comes second."""
        key = self.key(which)
        writer = self.theirs if old and key in self.planned_by_theirs else self.mine
        assert self.scene.commit(writer, key, spoiled=spoiled and key in self.there) is (key not in self.there)
        self.has({key})

    def has(self, keys: set[str]) -> None:
        self.there |= keys
        self.lost -= keys

    @rule(more=st.integers(0, 3))
    def plan_more(self, more: int) -> None:
        self.planned = min(UNITS, self.planned + more)
        self.mine = self.scene.opened(self.root, self.planned)

    @rule()
    def another_writer(self) -> None:
        self.theirs = self.scene.opened(self.root, self.planned)

    @property
    def planned_by_theirs(self) -> set[str]:
        return {unit if isinstance(unit, str) else unit.key for unit in self.theirs.plan}

    # Accidents

    @rule(which=_WHICH, calls=st.integers(0, 25))
    def killed_in_a_commit(self, which: int, calls: int) -> None:
        key = self.key(which)
        done = self.killed(calls, lambda: self.scene.commit(self.mine, key))
        self.mine = self.scene.opened(self.root, self.planned)
        now = key not in self.scene.missing(self.mine)
        assert now or (not done and key not in self.there), f"{key} was promised and is missing"
        self.has({key} if now else set())

    @rule(more=st.integers(1, 3), calls=st.integers(0, 15))
    def killed_while_planning(self, more: int, calls: int) -> None:
        wanted = min(UNITS, self.planned + more)
        self.killed(calls, lambda: self.scene.opened(self.root, wanted))
        self.planned = wanted
        self.mine = self.scene.opened(self.root, wanted)

    def killed(self, calls: int, act: Any) -> bool:
        """Whether it came to its end before so many calls that change the disk."""
        recorder = Recorder(self.root, left=calls)
        with recorder.recording():
            try:
                act()
                return True
            except Killed:
                return False

    @rule(which=_WHICH, cut=st.integers(0, 200))
    def a_log_is_torn_or_lost(self, which: int, cut: int) -> None:
        """Then a shard that is gone cannot be missed; those that are there tell whose they are."""
        logs = sorted((self.path / "commits").glob("*.jsonl"))
        if not logs or self.lost:
            return
        log = logs[which % len(logs)]
        if cut:
            log.write_bytes(log.read_bytes()[:-cut])
        else:
            log.unlink()
        self.mine = self.theirs = self.scene.opened(self.root, self.planned)

    @rule(which=_WHICH, how=st.sampled_from(["bit", "cut", "lost"]), at=_WHICH, calls=st.integers(0, 8))
    def a_shard_is_damaged(self, which: int, how: str, at: int, calls: int) -> None:
        """Verify finds it; repair, killed and run again, takes it away, and nothing else."""
        if not self.there or self.lost:
            return
        assert self.mine.verify(deep=True) == []  # after which every shard is in a log with its digest
        shards = sorted((self.path / "shards").rglob("*.h5"))
        shard = shards[which % len(shards)]
        whole = shard.read_bytes()
        place = at % len(whole)
        if how == "lost":
            shard.unlink()
        elif how == "cut":
            shard.write_bytes(whole[:place])
        else:
            shard.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << at % 8]) + whole[place + 1 :])
        assert self.mine.verify(deep=True)
        self.killed(calls, lambda: repair_store(self.path))
        repair_store(self.path)
        self.mine = self.theirs = self.scene.opened(self.root, self.planned)
        self.lost = self.there & set(self.scene.missing(self.mine))
        aside = list((self.path / "quarantine").glob(f"*{shard.stem}*")) if how != "lost" else [shard]
        assert len(self.lost) == 1 and not shard.exists() and aside
        self.there -= self.lost

    @rule(theirs=st.sets(st.integers(0, UNITS - 1)), planned=st.integers(1, UNITS), calls=st.integers(0, 20))
    def another_store_is_merged_in(self, theirs: set[int], planned: int, calls: int) -> None:
        """Killed, and run again: all that both had."""
        shutil.rmtree(self.root / "theirs", ignore_errors=True)
        other = self.scene.opened(self.root / "theirs", planned)
        keys = {self.scene.keys[place] for place in theirs if place < planned}
        for key in sorted(keys):
            self.scene.commit(other, key)
        source = self.root / "theirs" / self.scene.folder
        self.killed(calls, lambda: merge_stores([source], self.path))
        merge_stores([source], self.path)
        self.planned = max(self.planned, planned)
        self.mine = self.scene.opened(self.root, self.planned)
        self.has(keys)

    # What must hold

    @invariant()
    def nothing_promised_is_missing(self) -> None:
        if hasattr(self, "scene"):
            assert set(self.scene.missing(self.mine)) == set(self.scene.keys[: self.planned]) - self.there

    @rule()
    def read(self) -> None:
        if not self.lost:
            promises = [(MADE, self.planned), *((UNIT, key) for key in self.there)]
            found = self.scene.faults(self.root, promises)
            assert [line for line in found if "is in no log" not in line] == []  # logs were torn and lost

    def teardown(self) -> None:
        if hasattr(self, "scene"):
            self.read()
            self.verify(deep=True)

    @rule(deep=st.booleans())
    def verify(self, deep: bool) -> None:
        found = self.mine.verify(deep=deep)
        assert bool(found) == bool(self.lost), found


def run(n: int, scratch: Path, seed: int = 0) -> dict[str, int]:
    """`n` machines of 50 steps each, every one from a new store."""
    Machine.scratch, Machine.progress = scratch, counted("machine", n)
    settings = hypothesis.settings(
        max_examples=n,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=[*hypothesis.HealthCheck],
    )
    try:
        run_state_machine_as_test(hypothesis.seed(seed)(Machine), settings=settings)
    except Exception as error:
        print(f"  machine: {type(error).__name__}: {error}", *getattr(error, "__notes__", ()), sep="\n", flush=True)
        return {"bad": 1}
    return {"bad": 0}
