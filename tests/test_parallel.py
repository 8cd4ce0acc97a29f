"""Engines: every unit once, failures kept beside the others, and under Ray tried again, also when a worker dies."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import chat

import workbench.parallel as parallel
from workbench.training.population import PopulationFailed, population
from workbench.training.recipes import rank_sweep

ROWS = [chat(f"row{n}", f"question {n}", response=answer) for n, answer in enumerate(["yes", "no", "yes", "end"])]
TRAINED = dict(steps=1, batch_size=2, learning_rate=1e-2, progress=False)


def noted(*, folder, name, fails=0):
    """Writes its name, once for each attempt, and fails so many times."""
    file = folder / name
    attempts = len(file.read_text()) if file.exists() else 0
    file.write_text("x" * (attempts + 1))
    if attempts < fails:
        raise OSError(f"{name} fails for the {attempts + 1}th time")


def dies_once(*, folder, name):
    """The worker that has this unit is gone the first time, as one that was killed for its memory is."""
    file = folder / name
    if not file.exists():
        file.write_text("begun")
        os._exit(1)
    file.write_text("done")


def units(folder, **fails):
    return {name: (noted, {"folder": folder, "name": name, "fails": n}) for name, n in fails.items()}


def test_a_process_runs_every_unit_once_and_keeps_failures_apart(tmp_path):
    found = dict(parallel.done_units(units(tmp_path, a=0, b=9, c=0)))
    assert list(found) == ["a", "b", "c"] and found["a"] is found["c"] is None
    assert "Traceback" in found["b"] and "OSError: b fails for the 1th time" in found["b"]
    assert [(tmp_path / name).read_text() for name in "abc"] == ["x", "x", "x"]


def test_an_interrupt_is_no_failure(tmp_path):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(parallel.done_units({"a": (interrupted, {})}))


def test_unknown_engines_and_a_missing_ray_are_refused(tmp_path, own_checkpoint, monkeypatch):
    with pytest.raises(ValueError, match="expected 'process' or 'ray'"):
        list(parallel.done_units({}, "dask"))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install -e '\.\[ray\]'"):
        population(own_checkpoint[0], rank_sweep(ROWS, [1]), to=tmp_path, seeds=[0], engine="ray", **TRAINED)


class Task:
    def __init__(self, function, given):
        self.function, self.given = function, given


class StandIn:
    """As much of Ray as the engine uses, in this process: tasks end in the reverse of their order."""

    exceptions = SimpleNamespace(RayError=type("RayError", (Exception,), {}))

    def __init__(self):
        self.up, self.began, self.given = False, 0, {}

    def is_initialized(self):
        return self.up

    def init(self, **given):
        self.up, self.given = True, given

    def shutdown(self):
        self.up = False

    def remote(self, **options):
        assert options["max_retries"] == parallel.ATTEMPTS - 1
        return lambda function: SimpleNamespace(remote=lambda *given: self._begin(function, given))

    def _begin(self, function, given):
        self.began += 1
        return Task(function, given)

    def wait(self, running, num_returns):
        return running[-1:], running[:-1]

    def get(self, task):
        if task.given[0] is os._exit:
            raise self.exceptions.RayError("the worker died")
        return task.function(*task.given)


def test_ray_tries_failed_units_again_and_gives_up_on_few(tmp_path, monkeypatch):
    ray = StandIn()
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    given = {**units(tmp_path, a=0, b=2, c=3), "d": (os._exit, {})}
    found = dict(parallel.done_units(given, "ray"))
    assert sorted(found) == ["a", "b", "c", "d"] and found["a"] is found["b"] is None
    assert "c fails for the 3th time" in found["c"] and found["d"] == "RayError: the worker died"
    assert [len((tmp_path / name).read_text()) for name in "abc"] == [1, 3, 3] and ray.began == 1 + 3 + 3 + 1
    assert not ray.up and ray.given["address"] == "local"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    list(parallel.done_units({}, "ray"))
    assert "address" not in ray.given, "Ray reads RAY_ADDRESS itself"
    ray.up = True
    list(parallel.done_units({}, "ray"))
    assert ray.up, "a cluster that somebody else joined stays"


@pytest.fixture(scope="module")
def cluster():
    """A small cluster of this machine; skipped where the extra is not installed (pip install -e '.[ray]')."""
    ray = pytest.importorskip("ray", reason="Ray is an extra: pip install -e '.[ray]' runs this test")
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = f"{Path(__file__).parent}:{before}"  # where a worker finds the functions of this file
    ray.init(
        address="local", num_cpus=1, object_store_memory=parallel.STORE, include_dashboard=False, log_to_driver=False
    )
    yield ray
    ray.shutdown()
    os.environ["PYTHONPATH"] = before


def test_members_trained_by_ray_are_those_of_this_process(cluster, own_checkpoint, tmp_path):
    recipes = rank_sweep(ROWS, [1, 2])
    here = population(own_checkpoint[0], recipes, to=tmp_path / "here", seeds=[0], **TRAINED)
    there = population(own_checkpoint[0], recipes, to=tmp_path / "there", seeds=[0], engine="ray", **TRAINED)
    assert there.members == here.members and not there.missing
    for name, folder in here.adapters.items():
        file = "adapter_model.safetensors"
        assert (folder / file).read_bytes() == (there.adapters[name] / file).read_bytes()
    bad = {**recipes, "bad": {"rows": [chat("r", "no answer")], **{}}}
    with pytest.raises(PopulationFailed, match="has no response") as caught:
        population(own_checkpoint[0], bad, to=tmp_path / "there", seeds=[0], engine="ray", **TRAINED)
    assert list(caught.value.failures) == ["bad-seed0"] and list(caught.value.population.members) == list(here.members)


def test_a_dead_worker_loses_nothing(cluster, tmp_path):
    found = dict(parallel.done_units({n: (dies_once, {"folder": tmp_path, "name": n}) for n in ("a", "b")}, "ray"))
    assert found == {"a": None, "b": None} and (tmp_path / "a").read_text() == (tmp_path / "b").read_text() == "done"
