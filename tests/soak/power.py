"""Every way in which a kill or a power cut can end a run, played on its recorded calls.

Kill: after each call (`prefixes`), and in the middle of each write (`torn`). Power cut: after each call, what was not
synced is there or not; three cases at each place (nothing of it, only names, only bytes) and `n` drawn ones. And two
accidents in a row: a writer is killed after each of its calls, another goes on from there and promises, then the power
fails. `bad` counts cases in which a promised row is lost, wrong, unreadable or not in the log, or in which the same run
does not go on to the same end.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

from counts import counted
from recorder import Call, Change, Enter, Killed, Leave, Recorder, Write
from replay import Disk, Kept, Shown, Tree, tree_of
from scene_files import Files
from scene_merges import Merge
from scenes import Activations, Promise, Results, Scene

_SECTOR = 512


def run(n: int, scratch: Path, seed: int = 0, shards: int | None = None) -> dict[str, int]:
    """`n`: drawn power cuts in all; `shards`: length of the runs, 20 in a whole soak."""
    shards = shards or max(2, min(20, n // 100))
    chance, counts = random.Random(seed), {"prefixes": 0, "torn": 0, "power_cuts": 0, "bad": 0}
    scenes: dict[str, Scene] = {
        "activations": Activations(shards),
        "results": Results(shards),
        "bulk": Activations(max(2, shards // 4), bulk=True),
        "files": Files(max(2, shards // 2)),
        "merge": Merge(max(2, shards // 2)),
        "merge, copied": Merge(max(2, shards // 4), link=False),
    }
    for at, (name, scene) in enumerate(scenes.items()):
        drawn = n // len(scenes) + (at < n % len(scenes))
        for kind, count in one_run(scene, scratch / name, drawn, chance, every=1 if shards < 5 else 4).items():
            counts[kind] += count
    pairs: dict[str, Scene] = {
        "store": Activations(2, again=True),
        "table": Results(2),
        "file": Files(2),
    }
    for name, scene in pairs.items():
        for accident in ACCIDENTS:
            where = scratch / f"{name}, {accident}"
            cuts, bad = cut_after(accident, scene, where, chance, NAMING if shards < 6 else ())
            counts["power_cuts"] += cuts
            counts["bad"] += bad
    return counts


def one_run(
    scene: Scene, scratch: Path, n: int, chance: random.Random, every: int = 1, first: bool = False
) -> dict[str, int]:
    """All kills and torn writes of one run, and `n` drawn power cuts besides those at every place. `first`: no further
    than the first that is bad."""
    judge = Judge(scene, scratch, every)
    return {**played(judge, *judge.recorded(), n, chance, first), "bad": len(judge.bad)}


class Judge:
    """Shows what a crash left to the scene. Folders that differ only in unfinished files look alike to every reader,
    and are judged once for the same promises; from every so many of those that differ the run goes on."""

    def __init__(self, scene: Scene, scratch: Path, every: int = 1) -> None:
        self.scene, self.scratch, self.every = scene, scratch, every
        self.bad: list[str] = []
        self._known: dict[int, bool] = {}
        self._shown = Shown(scratch / "shown")

    def recorded(self) -> tuple[Disk, list[Call]]:
        """The scene, run once. Raises AssertionError when the recorder has missed a call."""
        root = self.scratch / "run"
        root.mkdir(parents=True)
        self.scene.prepare(root)
        recorder, before = Recorder(root), tree_of(root)
        start = recorder.starting_at()
        with recorder.recording():
            self.scene.run(root, recorder.told)
        check_whole(Disk(start, before), recorder.calls, root)
        shutil.rmtree(root)
        return Disk(start, before, getattr(self.scene, "unsafe", False)), recorder.calls

    def see(self, tree: Tree, promises: Sequence[Promise], where: str) -> bool:
        """Whether all is well there."""
        visible = tuple((path, None if unfinished(path) else content) for path, content in tree.items())
        key = hash((visible, len(promises)))
        if key not in self._known:
            found = self.scene.faults(self._shown.show(tree), promises)
            if not found and len(self._known) % self.every == 0:
                found = self._gone_on(tree)
            self._known[key] = not found
            if found:
                print(f"  {self.scratch.parent.name}/{self.scratch.name}, {where}: {found[0]}", flush=True)
        if not self._known[key]:
            self.bad.append(where)
        return self._known[key]

    def _gone_on(self, tree: Tree) -> list[str]:
        """The same run, from what the crash left: it must end as if nothing had happened."""
        root = Shown(self.scratch / "gone on").show(tree)
        try:
            self.scene.run(root, lambda promise: None)
            return self.scene.finished(root)
        except Exception as error:
            return [f"does not go on: {type(error).__name__}: {error}"]
        finally:
            shutil.rmtree(root)


def unfinished(path: str) -> bool:
    """Whether no reader looks into this file: it stands in `tmp/`, or is the hidden draft of a file."""
    return "/tmp/" in path or path.rpartition("/")[2].startswith(".")


def check_whole(disk: Disk, calls: Sequence[Call], root: Path) -> None:
    for call in calls:
        disk.play(call)
    came, there = disk.left(), tree_of(root)
    assert came == there, f"the recorder missed a call: {sorted(came.keys() ^ there.keys()) or 'contents differ'}"


def played(
    judge: Judge, disk: Disk, calls: Sequence[Call], n: int, chance: random.Random, first: bool = False
) -> dict[str, int]:
    """All the crashes of one run."""
    counts, promises = {"prefixes": 0, "torn": 0, "power_cuts": 0}, []
    drawn = [0] * len(calls)
    for _ in range(n):
        drawn[chance.randrange(len(calls))] += 1
    for at in counted(f"power, {judge.scratch.name}", len(calls)):
        call = calls[at]
        if call.told is not None:
            promises.append(call.told)
        disk.play(call)
        where = f"call {at} ({call.name})"
        judge.see(disk.left(), promises, f"killed after {where}")
        counts["prefixes"] += 1
        for cut in torn(call, chance):
            judge.see(disk.left(cut), promises, f"torn in {where}")
            counts["torn"] += 1
        for kept in (*EXTREMES, *(drawn_cut(chance) for _ in range(drawn[at]))):
            judge.see(disk.left(kept), promises, f"power cut after {where}")
            counts["power_cuts"] += 1
        if first and judge.bad:
            break
    return counts


def torn(call: Call, chance: random.Random) -> list[Kept]:
    """The last write cut at its first byte, at its last one, and in between."""
    if not call.changes or not isinstance(last := call.changes[-1], Write) or len(last.data) < 2:
        return []
    places = {1, len(last.data) - 1, chance.randrange(1, len(last.data))}
    return [lambda change, size=size: shortened(change, size) if change is last else change for size in sorted(places)]


def shortened(change: Change, size: int) -> Change:
    assert isinstance(change, Write)
    return Write(change.node, change.offset, change.data[:size])


def nothing(change: Change) -> None:
    """The kernel had begun with nothing."""


def only_names(change: Change) -> Change | None:
    """Files under their names, empty: what delayed allocation does."""
    return change if isinstance(change, Enter | Leave) else None


def only_bytes(change: Change) -> Change | None:
    return None if isinstance(change, Enter | Leave) else change


EXTREMES = (nothing, only_names, only_bytes)


def drawn_cut(chance: random.Random) -> Kept:
    """Each change kept by chance, names and bytes with chances of their own; some writes in whole sectors only."""
    names, data, sectors = (chance.choice([0.1, 0.5, 0.9, 1.0]) for _ in range(3))

    def kept(change: Change) -> Change | None:
        if chance.random() > (names if isinstance(change, Enter | Leave) else data):
            return None
        if isinstance(change, Write) and chance.random() > sectors:
            return shortened(change, len(change.data) // _SECTOR * chance.randrange(2) * _SECTOR)
        return change

    return kept


ACCIDENTS: dict[str, BaseException | None] = {
    "killed": None,
    "refused": OSError(errno.EIO, os.strerror(errno.EIO)),
    "interrupted": KeyboardInterrupt(),
}


NAMING = ("mkdir", "link", "rename", "write")  # after these, a name or a line stands there and is not safe


def cut_after(
    accident: str, scene: Scene, scratch: Path, chance: random.Random, after: Sequence[str] = (), first: bool = False
) -> tuple[int, int]:
    """A run meets an accident after each of its calls in turn (or after those of these names): it is killed, and
    another goes on; or a call fails, or somebody interrupts, and the same objects go on. Then the power fails: what had
    a name and was not synced is for those who go on to make safe, before they promise. Returns (power cuts, bad)."""
    cuts, bad = 0, 0
    _, calls = Judge(scene, scratch / "whole", every=1_000_000).recorded()
    made = [call for call in calls if call.told is None]
    for at in [at for at, call in enumerate(made, 1) if not after or call.name in after]:
        judge = Judge(scene, scratch / str(at), every=1_000_000)
        root = judge.scratch / "run"
        root.mkdir()
        recorder = Recorder(root, left=at, accident=ACCIDENTS[accident])
        with recorder.recording():
            try:
                scene.run(root, recorder.told)
            except Killed:
                recorder.left = None
                scene.run(root, recorder.told)
        disk, promises = Disk(), []
        for call in recorder.calls:
            disk.play(call)
            if call.told is not None:
                promises.append(call.told)
                for kept in (*EXTREMES, drawn_cut(chance)):
                    judge.see(disk.left(kept), promises, "then a power cut")
                    cuts += 1
        bad += len(judge.bad)
        shutil.rmtree(judge.scratch)
        if first and bad:
            break
    return cuts, bad
