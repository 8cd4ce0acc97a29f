"""Warm workers: units are shared out, tried again after exceptions and deaths, and nothing hangs. Ray itself is a
stand-in here (`test_ray_cluster.py` has the real one)."""

import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

import workbench.actors as actors
from stores.errors import StoreMismatch
from workbench.actors import Ray, UnitsFailed, ray_asked, run_by_actors
from workbench.capturing import capture
from workbench.interventions.sweep import sweep


class Lost(Exception):
    """What Ray raises when a worker, or its machine, is gone."""


class TaskError(Exception):
    """What Ray raises for an exception of the worker's own."""

    def __init__(self, cause):
        self.cause = cause
        super().__init__(f"ray::Warm: {cause!r}")


class StandIn:
    """As much of Ray as the crew uses, in this process: the oldest call is over first; `dies(call)` says which workers
    die of what they are asked."""

    def __init__(self, nodes, dies=lambda call: False):
        self.exceptions = SimpleNamespace(RayError=Lost, RayTaskError=TaskError)
        self.listed = [{"Alive": True, "Resources": node} for node in nodes]
        self.free, self.dies, self.killed, self.hired, self.calls = 10**9, dies, [], [], []

    def is_initialized(self):
        return True

    def nodes(self):
        return self.listed

    def put(self, thing):
        return thing

    def kill(self, worker):
        self.killed.append(worker)

    def remote(self, **options):
        self.options = options

        def hire(*handed):
            worker = SimpleNamespace(inside=actors.Warm(*handed), number=len(self.hired))
            for name in ("here", "begin", "run"):
                call = lambda *given, name=name: self._called(worker, name, given)  # noqa: E731
                setattr(worker, name, SimpleNamespace(remote=call))
            self.hired.append(worker)
            return worker

        return lambda cls: SimpleNamespace(remote=hire)

    def _called(self, worker, name, given):
        self.calls.append(SimpleNamespace(worker=worker, name=name, given=given, number=len(self.calls)))
        return (len(self.calls) - 1,)

    def wait(self, calls, num_returns, timeout):
        placed = [call for call in calls if self.calls[call[0]].worker.number < self.free]
        return placed[:1], []

    def get(self, reference):
        call = self.calls[reference[0]]
        if self.dies(call) or call.worker in self.killed:
            raise Lost("the worker died\nof something")
        try:
            return getattr(call.worker.inside, call.name)(*call.given)
        except Exception as error:
            raise TaskError(error) from error


class Counting:
    """A work of `n` units that are done by being listed in `done`; `fails[key]` times it raises instead."""

    def __init__(self, n, done, fails=None, refuses=None):
        if refuses:
            raise refuses.pop()
        self.planned, self._n, self.done, self._fails = n, n, done, {} if fails is None else fails

    def left(self) -> list[str]:
        return [f"u{i}" for i in range(self._n) if f"u{i}" not in self.done]

    def run(self, keys) -> Iterator[str]:
        for key in keys:
            if self._fails.get(key, 0):
                self._fails[key] -= 1
                raise OSError(f"{key} fails")
            self.done.append(key)
            yield key


@pytest.fixture
def stand_in(monkeypatch):
    def made(*nodes, **more):
        ray = StandIn(nodes or [{"CPU": 2}], **more)
        monkeypatch.setitem(sys.modules, "ray", ray)
        return ray

    return made


def run(work, engine=None, **more):
    run_by_actors(Counting, work, engine or Ray(), name="counting", progress=False, **more)


@pytest.mark.parametrize("n", [0, 1, 5, 1000])
def test_every_unit_is_done_once_and_every_worker_ends(stand_in, n):
    ray, done = stand_in({"CPU": 2}, {"CPU": 1}), ["u3"] if n > 3 else []
    run({"n": n, "done": done})
    assert sorted(done) == sorted(f"u{i}" for i in range(n))
    assert len(ray.hired) == 3 and set(map(id, ray.killed)) == set(map(id, ray.hired))
    given = [call.given[0] for call in ray.calls if call.name == "run"]
    assert not any(again for call in ray.calls if call.name == "run" for again in call.given[1:])
    if n == 1000:
        assert max(map(len, given)) == actors.MOST and len(given[-1]) == 1, "much at first, single units at the end"


def test_a_unit_that_raises_is_tried_again_and_its_company_is_not_lost(stand_in):
    done, fails = [], {"u7": 3, "u100": 3}  # once in company, twice alone
    run({"n": 200, "done": done, "fails": stand_in() and fails})
    assert sorted(done) == sorted({f"u{i}" for i in range(200)}), "each once: what stood before the exception is kept"


def test_units_that_always_fail_are_named_at_the_end_and_the_others_are_done(stand_in):
    stand_in()
    done: list[str] = []
    with pytest.raises(UnitsFailed, match=r"counting: 2 units failed 3 times each(.|\n)*OSError: u\d+ fails") as caught:
        run({"n": 50, "done": done, "fails": {"u3": 99, "u41": 99}})
    assert set(caught.value.failures) == {"u3", "u41"} and len(done) == 48


def test_where_everything_fails_it_stops_early(stand_in):
    ray = stand_in()
    with pytest.raises(UnitsFailed, match=rf"{actors.TOO_MANY} units failed"):
        run({"n": 500, "done": [], "fails": {f"u{i}": 99 for i in range(500)}})
    assert sum(call.name == "run" for call in ray.calls) < 500


def test_a_dead_worker_is_replaced_and_loses_nothing(stand_in):
    """Two die of their first units and one while it loads the model."""
    dead: list[int] = []

    def dies(call):
        if call.worker.number < 3 and call.name == ("begin" if call.worker.number == 0 else "run"):
            dead.append(call.worker.number)
            return True
        return False

    ray, done = stand_in({"CPU": 4}, dies=dies), []
    run({"n": 100, "done": done})
    assert sorted(dead) == [0, 1, 2] and len(ray.hired) == 7
    assert sorted(done) == sorted(f"u{i}" for i in range(100))


def test_workers_may_die_as_often_as_they_like_where_something_is_done(stand_in):
    """As on machines that are taken away now and then: each worker dies of the second thing it is given."""
    given: list[int] = []

    def dies(call):
        given.append(call.worker.number) if call.name == "run" else None
        return given.count(call.worker.number) > 1

    ray, done = stand_in({"CPU": 1}, dies=dies), []
    run({"n": 30, "done": done})
    assert sorted(done) == sorted(f"u{i}" for i in range(30)) and len(ray.hired) > actors.ATTEMPTS + 1


def test_a_unit_that_kills_its_worker_is_given_up_and_the_others_are_done(stand_in):
    done: list[str] = []
    stand_in(dies=lambda call: call.name == "run" and "u5" in call.given[0])
    with pytest.raises(UnitsFailed, match="1 units failed") as caught:
        run({"n": 20, "done": done})
    assert list(caught.value.failures) == ["u5"] and "Lost: the worker died" in caught.value.failures["u5"]
    assert sorted(done) == sorted(f"u{i}" for i in range(20) if i != 5)


def test_workers_that_die_at_once_end_the_work(stand_in):
    ray = stand_in(dies=lambda call: call.name == "begin")
    with pytest.raises(RuntimeError, match="no worker is left; the last one: Lost: the worker died"):
        run({"n": 5, "done": []})
    assert len(ray.hired) <= 2 * actors.ATTEMPTS + 2


def test_what_the_user_can_mend_is_raised_as_it_is(stand_in):
    ray = stand_in({"CPU": 4})
    with pytest.raises(StoreMismatch, match="another spec"):
        run({"n": 5, "done": [], "refuses": [StoreMismatch("another spec")] * 4})
    assert len(ray.killed) == 4
    with pytest.raises(ZeroDivisionError):
        run({"n": 5, "done": [], "refuses": [ZeroDivisionError("x")] * 4})


def test_a_worker_that_cannot_begin_is_left_out(stand_in, capsys):
    ray, done = stand_in({"CPU": 3}), []
    run_by_actors(Counting, {"n": 5, "done": done, "refuses": [MemoryError("full")]}, Ray(), name="counting")
    assert len(done) == 5 and len(ray.hired) == 3
    assert "a worker could not begin, and is left out: MemoryError: full" in capsys.readouterr().err


def test_without_room_it_says_what_a_worker_needs(stand_in):
    ray = stand_in({"CPU": 8})
    ray.free = 0
    with pytest.raises(TimeoutError, match=r"no worker in 0 s; each needs 1 CPUs and 2 GPUs(.|\n)*wb\.Ray\(cpus="):
        run({"n": 5, "done": []}, Ray(gpus=2, patience=0))


@pytest.mark.parametrize(
    ("nodes", "engine", "cpus", "gpus", "workers"),
    [
        ([{"CPU": 4}, {"CPU": 2}], Ray(), 1, 0, 6),
        ([{"CPU": 4}, {"CPU": 2}], Ray(actors=2, cpus=2), 2, 0, 2),
        ([{"CPU": 3}, {"CPU": 5}], Ray(threads=2), 2, 0, 3),
        ([{"CPU": 2}], Ray(threads=8), 2, 0, 1),
        ([{"CPU": 16, "GPU": 8}, {"CPU": 4}], Ray(), 1, 1, 8),
        ([{"CPU": 16, "GPU": 8}], Ray(gpus=2), 1, 2, 4),
        ([{"CPU": 4, "GPU": 8}], Ray(cpus=2), 2, 1, 2),
        ([{"CPU": 4, "GPU": 1}], Ray(gpus=0), 1, 0, 4),
        ([], Ray(), 1, 0, 1),
    ],
)
def test_workers_are_as_many_as_there_is_room_for(stand_in, nodes, engine, cpus, gpus, workers):
    ray = stand_in({"CPU": 1})
    ray.listed = [{"Alive": True, "Resources": node} for node in nodes] + [{"Alive": False, "Resources": {"CPU": 99}}]
    threads = torch.get_num_threads()
    run({"n": 3, "done": []}, engine)
    assert (ray.options["num_cpus"], ray.options["num_gpus"], len(ray.hired)) == (cpus, gpus, workers)
    torch.set_num_threads(threads)


def test_a_loaded_model_and_what_cannot_be_sent_are_refused(llama, questions, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"an object in this process: expected its folder .* wb\.ModelSource\(folder"):
        capture(llama, questions, to=tmp_path / "s", engine="ray")
    with pytest.raises(ValueError, match="an object in this process"):
        sweep(llama, questions, [], to=tmp_path / "s", engine="ray")
    with pytest.raises(ValueError, match="leaves its table in a folder"):
        sweep("model", questions, [], engine="ray")
    with pytest.raises(ModuleNotFoundError, match=r"pip install -e '\.\[ray\]'"):
        capture("model", questions, to=tmp_path / "s", engine="ray")
    assert ray_asked("process") is None and ray_asked(Ray(gpus=2)) == Ray(gpus=2)
