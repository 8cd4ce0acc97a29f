"""A real cluster of two nodes on this machine: a worker and then a node are killed while the organism's prompts are
captured, and the rows are those of one process, bit for bit."""

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import workbench as wb
from stores import StoreMismatch, schema
from workbench.parallel import STORE

ray = pytest.importorskip("ray", reason="Ray is an extra: pip install -e '.[ray]' runs these tests")

SETTINGS = dict(sites="resid_post", at="all", max_tokens=24, progress=False)  # a prompt or two a unit


@pytest.fixture(scope="module")
def cluster():
    """A head with one CPU and a second node with two; workers of `engine="ray"` find it, as it is joined already."""
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": STORE, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **small})
    made.second = made.add_node(num_cpus=2, object_store_memory=STORE)
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


def source(world, **more):
    """In bfloat16, where another batch shape would show, and with base and fine-tune."""
    return wb.ModelSource(world.base, adapter=world.tuned, options={"dtype": "bfloat16", "check": False}, **more)


def shards(store: Path) -> int:
    return len(list((store / schema.SHARDS).glob("*/*.h5")))


def writers(store: Path) -> dict[int, int]:
    """Process -> shards it has committed: a log is named `<host>.<pid>.<random>.jsonl`."""
    logs = (store / schema.COMMITS).glob("*.jsonl")
    return {int(log.name.split(".")[-3]): log.read_bytes().count(b"\n") for log in logs}


def parent(process: int) -> int:
    return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])


def frozen(store: Path, wanted) -> int:
    """A process that has committed something, stopped with units in hand: with those it was at, or, had it just ended
    with them, with the next, which are given to it all the same."""
    while not (found := [process for process in writers(store) if wanted(process)]):
        time.sleep(0.002)
    os.kill(found[0], signal.SIGSTOP)
    time.sleep(0.3)
    return found[0]


def test_a_killed_worker_and_a_killed_node_lose_nothing(cluster, world, tmp_path, capfd):
    one = wb.capture(source(world), world.prompts, variants=("base", "tuned"), to=tmp_path / "one", **SETTINGS)
    there, killed = tmp_path / "there", []
    raylet = cluster.second.all_processes["raylet"][0].process.pid

    def kill():
        first = frozen(there, lambda process: True)
        os.kill(first, signal.SIGKILL)
        killed.append(shards(there))
        second = frozen(there, lambda process: process != first and parent(process) == raylet)
        cluster.remove_node(cluster.second, allow_graceful=False)
        os.kill(second, signal.SIGKILL)  # a frozen process does not see that its node is gone
        killed.append(shards(there))

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    asked = {**SETTINGS, "progress": True}
    store = wb.capture(
        source(world), world.prompts, variants=("base", "tuned"), to=there, engine=wb.Ray(actors=3), **asked
    )
    thread.join(30)
    assert len(killed) == 2 and killed[0] <= killed[1] < len(one.plan), "both died while there was work"
    said = [line for line in capfd.readouterr().err.splitlines() if "a worker was lost with" in line]
    assert sum("with 0 units" not in line for line in said) >= 2, "and both had units in hand"
    assert not store.missing() and store.verify(deep=True) == [] and shards(there) == len(one.plan)
    assert store.plan == one.plan and store.prompt_ids == one.prompt_ids and store.variants == one.variants
    assert store.positions.tolist() == one.positions.tolist()
    for site in one.sites:
        assert np.array_equal(store.values(site), one.values(site)), site
    assert len(writers(there)) > 1


def test_a_sweep_and_written_answers_by_ray_are_those_of_this_process(cluster, world, tmp_path):
    """What the node's death left of the cluster: the head, with one worker."""
    prompts = wb.read_prompts(world.prompts)[:12]
    asked = dict(responses="generate", at="response", max_new_tokens=4, max_tokens=60, progress=False)
    here = wb.capture(source(world), prompts, variants=("base", "tuned"), to=tmp_path / "here", **asked)
    there = wb.capture(source(world), prompts, variants=("base", "tuned"), to=tmp_path / "t", engine="ray", **asked)
    assert np.array_equal(here.values("resid_post:3"), there.values("resid_post:3"))
    texts = [[one.response for one in wb.with_answers(prompts, store, "tuned")] for store in (here, there)]
    assert texts[0] == texts[1] and len(here.plan) > 2

    rows = wb.capture(source(world), prompts, variants=("base", "tuned"), to=tmp_path / "rows", **SETTINGS)
    v = wb.difference_of_means(rows.where(variant="tuned"), rows.where(variant="base"))
    questions, cells = wb.read_prompts(world.questions)[:9], [wb.Ablate(v, layer=layer) for layer in (1, 2, 3)]
    grid = dict(judge=wb.judge("rule:organism"), controls=2, neutral=world.neutral, max_tokens=100, max_new_tokens=4)
    tuned = source(world, variant="tuned")
    one = wb.sweep(tuned, questions, cells, to=tmp_path / "one", progress=False, **grid)
    other = wb.sweep(tuned, questions, cells, to=tmp_path / "other", engine="ray", progress=False, **grid)
    assert len(one.plan) > 3 and other.rows() == one.rows() and other.spec == one.spec


def test_errors_come_as_in_this_process(cluster, world, tmp_path):
    wb.capture(source(world), world.prompts, to=tmp_path / "s", **{**SETTINGS, "at": "last"})
    with pytest.raises(StoreMismatch, match="another spec"):
        wb.capture(source(world), world.prompts, to=tmp_path / "s", engine="ray", **SETTINGS)
    with pytest.raises(FileNotFoundError, match="model folder /no/such/model does not exist"):
        wb.capture("/no/such/model", world.prompts, to=tmp_path / "t", engine="ray", **SETTINGS)
