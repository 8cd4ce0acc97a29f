"""capture and its writer: the same bits with and without the thread, bounded memory; and what a disk cannot hold."""

import shutil
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import chat
from workbench_samples import by_place

from hooks.answered import PromptsAsWritten
from hooks.host_copy import ToHost
from hooks.site import Site
from stores import ActivationStore, NoRows
from workbench import capturing
from workbench.captures import size
from workbench.captures.plan import kept_streams
from workbench.captures.writing import Writer
from workbench.capturing import capture

WAIT = 60.0  # seconds; only a test that fails waits so long
SILENT = {"progress": False}
SETTINGS = dict(sites="resid_pre, resid_post", at="all", max_tokens=120, **SILENT)


def shards(folder):
    """The bytes of every shard, by name."""
    return {file.name: file.read_bytes() for file in folder.rglob("*.h5")}


def test_the_thread_changes_no_byte(half, many, tmp_path, monkeypatch):
    """bfloat16, mixed lengths, many units: one way writes while it computes, the other writes at once."""
    beside = capture(half, many, to=tmp_path / "beside", **SETTINGS)
    monkeypatch.setattr(capturing, "Writer", lambda write, slots: Writer(write, slots, threaded=False))
    at_once = capture(half, many, to=tmp_path / "at once", **SETTINGS)
    assert len(beside.plan) >= 4 and beside.prompt_ids == at_once.prompt_ids
    assert all(np.array_equal(beside.values(site), at_once.values(site)) for site in beside.sites)
    assert {len(data) for data in shards(tmp_path / "beside").values()} == {
        len(data) for data in shards(tmp_path / "at once").values()
    }


def test_a_slow_disk_bounds_what_is_in_memory(half, many, tmp_path, monkeypatch):
    """At most one unit a slot is computed and not yet written, however slow the disk; and no unit is overwritten in
    its slot before it was written, or the bits would differ. The disk is slower than any machine: it begins to write
    when every slot is full, and leaves 20 ms for a unit too many."""
    truth = capture(half, many, to=tmp_path / "truth", **{**SETTINGS, "max_tokens": 60})
    made, ahead, commit, done = [], [], ActivationStore.commit, []
    another = threading.Condition()
    slots = ToHost.slots
    monkeypatch.setattr(ToHost, "slots", lambda self, n=4: made.append(slots(self, 2)) or made[-1])
    send = ToHost.send

    def sent(self, slot, slabs):
        with another:
            ahead.append(1)
            most.append(len(ahead) - len(done))
            another.notify()
        return send(self, slot, slabs)

    def slow(self, unit, blocks, note=""):
        assert threading.current_thread().name == "writer", "h5py is used by one thread alone"
        with another:
            assert another.wait_for(lambda: len(ahead) >= min(len(done) + 2, len(truth.plan)), WAIT)
        time.sleep(0.02)
        out = commit(self, unit, blocks, note)
        done.append(1)
        return out

    most = []
    monkeypatch.setattr(ToHost, "send", sent)
    monkeypatch.setattr(ActivationStore, "commit", slow)
    store = capture(half, many, to=tmp_path / "s", **{**SETTINGS, "max_tokens": 60})
    assert len(store.plan) == len(truth.plan) > 6 and max(most) == 2 and len(made[0]) == 2
    largest = max(unit_bytes(half, store, many))
    assert max(slot.nbytes for slot in made[0]) <= largest
    assert all(np.array_equal(store.values(site), truth.values(site)) for site in truth.sites)


def unit_bytes(model, store, prompts):
    lengths = {prompt.id: len(model.encoder.encode(prompt)) for prompt in prompts}
    for unit in store.plan:
        yield sum(lengths[identifier] for identifier in unit.prompt_ids) * len(store.sites) * model.d_model * 2


def test_a_disk_that_fails_stops_the_run_and_what_was_committed_stays(llama, many, tmp_path, monkeypatch):
    ran, commit, run = [], ActivationStore.commit, type(llama).run
    count = iter(range(100))

    def full(self, unit, blocks, note=""):
        if next(count) == 2:
            raise OSError(28, "No space left on device")
        return commit(self, unit, blocks, note)

    monkeypatch.setattr(ActivationStore, "commit", full)
    monkeypatch.setattr(
        type(llama), "run", lambda self, *a, **k: (time.sleep(0.02), ran.append(1), run(self, *a, **k))[2]
    )
    settings = {**SETTINGS, "max_tokens": 30}
    with pytest.raises(OSError, match="No space left on device"):
        capture(llama, many, to=tmp_path / "s", **settings)
    store = ActivationStore.open(tmp_path / "s")
    assert len(store.plan) - len(store.missing()) == 2 and store.verify(deep=True) == []
    assert len(ran) < len(store.plan), "no forward for nothing"
    monkeypatch.undo()
    again = capture(llama, many, to=tmp_path / "s", **settings)
    whole = capture(llama, many, to=tmp_path / "whole", **settings)
    assert all(np.array_equal(again.values(site), whole.values(site)) for site in whole.sites)


def test_ctrl_c_in_a_forward_keeps_what_was_computed(llama, many, tmp_path, monkeypatch):
    run, count = type(llama).run, iter(range(100))

    def interrupted(self, *arguments, **named):
        if next(count) == 3:
            raise KeyboardInterrupt
        return run(self, *arguments, **named)

    monkeypatch.setattr(type(llama), "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        capture(llama, many, to=tmp_path / "s", **{**SETTINGS, "max_tokens": 60})
    store = ActivationStore.open(tmp_path / "s")
    assert len(store.plan) - len(store.missing()) == 3 and store.verify(deep=True) == []
    assert "writer" not in {thread.name for thread in threading.enumerate()}


# Before anything is written.


def disk(monkeypatch, free):
    monkeypatch.setattr(size.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))


@pytest.mark.parametrize(("scope", "pool"), [("all", "none"), ("all", "mean"), ("response", "none"), (3, "none")])
def test_the_estimate_is_what_is_written(llama, prompts, scope, pool, tmp_path, monkeypatch):
    """To a block a shard and two long ids a row: values and columns are counted, headers and ids bounded."""
    said = []
    monkeypatch.setattr(capturing, "refuse_full", lambda to, nbytes: said.append(nbytes))
    rows = len(capture(llama, prompts, at=scope, pool=pool, to=tmp_path / "s", **SILENT))
    written = shards(tmp_path / "s").values()
    headers = 80_000 * len(written) + 128 * rows
    assert sum(map(len, written)) <= said[0] <= sum(map(len, written)) + headers


def test_rows_are_counted_as_they_are_stored(scene, tmp_path):
    model, prompts = scene
    for scope in ("last", "all", "prompt", "response", "answering", "post_instruction", "image", "text", 2):
        for pool in ("none", "mean"):
            kept, to = size_rows(model, prompts, scope, pool), tmp_path / f"{scope} {pool}"
            if size_rows(model, prompts, scope, "none") == 0:
                with pytest.raises(NoRows, match=f"scope '{scope}' matches no position of any of the {len(prompts)}"):
                    capture(model, prompts, at=scope, pool=pool, to=to, **SILENT)
                assert not to.exists()
                continue
            stored = len(capture(model, prompts, at=scope, pool=pool, to=to, **SILENT))
            assert kept == stored if pool == "none" else kept >= stored, (scope, pool)


def size_rows(model, prompts, scope, pool):
    kept = kept_streams(model, [Site(0)], {"language": scope}, pool, prompts)
    rows = size.rows_of(model, kept, PromptsAsWritten(model.encoder, prompts).outlines)
    return sum(row["resid_post"] for row in rows)


def test_a_disk_that_cannot_hold_it_is_refused_before_a_store_is_made(llama, many, tmp_path, monkeypatch):
    disk(monkeypatch, free=50_000)
    with pytest.raises(ValueError, match=r"would write \d.*: expected as much room, but the disk has 48.8 KiB"):
        capture(llama, many, to=tmp_path / "deep" / "s", **SETTINGS)
    assert list(tmp_path.iterdir()) == []
    size.refuse_full(tmp_path / "deep", 50_000)
    with pytest.raises(ValueError, match="expected as much room"):
        size.refuse_full(tmp_path / "deep", 50_001)
    disk(monkeypatch, free=10**9)
    capture(llama, many, to=tmp_path / "deep" / "s", **SETTINGS)


def test_what_is_there_needs_no_room(llama, many, tmp_path, monkeypatch):
    capture(llama, many[:8], to=tmp_path / "s", **SETTINGS)
    disk(monkeypatch, free=0)
    assert len(set(capture(llama, many[:8], to=tmp_path / "s", **SETTINGS).prompt_ids)) == 8
    with pytest.raises(ValueError, match="expected as much room"):
        capture(llama, many, to=tmp_path / "s", **SETTINGS)
    shutil.rmtree(next((tmp_path / "s" / "shards").iterdir()))
    assert size.unwritten(tmp_path / "nowhere", ["a", "b"]) == {"a", "b"}


def test_what_is_much_is_said_before(llama, many, tmp_path, monkeypatch, capsys):
    capture(llama, many[:2], to=tmp_path / "a")
    assert "KiB" not in capsys.readouterr().err, "a line for little would be read by nobody"
    monkeypatch.setattr(size, "SAID", 1000)
    capture(llama, many[:2], to=tmp_path / "s")
    line = capsys.readouterr().err.splitlines()[0]
    assert line.startswith("  capture s: about ") and "tokens/s the disk takes" in line
    capture(llama, many[:2], to=tmp_path / "t", **SILENT)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("nbytes", "tokens", "bulk"), [(1 << 30, 10_000, True), (1 << 30, 1_000_000, False), (1 << 20, 1, False)]
)
def test_much_a_token_is_sealed_in_bulk(nbytes, tokens, bulk):
    assert size.in_bulk(nbytes, tokens) is bulk


def test_the_way_of_sealing_is_passed_on(llama, many, tmp_path, monkeypatch):
    asked, create = [], ActivationStore.create
    monkeypatch.setattr(
        ActivationStore, "create", lambda *a, bulk, **k: asked.append(bulk) or create(*a, bulk=bulk, **k)
    )
    monkeypatch.setattr(capturing, "in_bulk", lambda nbytes, tokens: tokens == 2 * length)
    length = len(llama.encoder.encode(many[0]))
    for n in (1, 2):
        capture(llama, many[:1] * 1, variants=("base",) * n, to=tmp_path / str(n), **SILENT)
    assert asked == [False, True] and ActivationStore.open(tmp_path / "2").verify(deep=True) == []


def test_the_size_is_readable():
    assert [size._readable(n) for n in (0, 1023, 2048, 3 << 30, 5 << 50)] == [
        "0 B", "1023 B", "2.0 KiB", "3.0 GiB", "5120.0 TiB",
    ]  # fmt: skip


def test_each_prompt_is_tokenised_once(llama, many, tmp_path, monkeypatch):
    seen, encode = [], llama.encoder.encode
    monkeypatch.setattr(llama.encoder, "encode", lambda prompt, **k: seen.append(prompt.id) or encode(prompt, **k))
    store = capture(llama, many, to=tmp_path / "s", **SILENT)
    assert sorted(seen) == sorted(prompt.id for prompt in many)
    assert by_place(store, "resid_post:0").keys() == {(p.id, "base", len(encode(p)) - 1) for p in many}


def test_variants_of_a_tower_and_of_text_share_the_slabs(gemma3, picture, tmp_path):
    """Text units have no rows in a tower, also behind a unit that had some in the same slot."""
    prompts = [chat("a", picture, "what"), *[chat(f"t{n}", "word " * (3 * n + 1)) for n in range(5)]]
    at = {"language": "last", "vision": "image"}
    settings = dict(sites="resid_post, vision.resid_post", at=at, max_tokens=60, **SILENT)
    store = capture(gemma3, prompts, to=tmp_path / "s", **settings)
    assert set(store.at("vision.resid_post").prompt_ids) == {"a"} and len(store.at("resid_post")) == 6
