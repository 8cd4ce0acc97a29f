"""The thread that writes: order, back-pressure, errors of either side, and no way to wait for ever."""

import threading
import time

import pytest

from workbench.captures.writing import Writer

WAIT = 20.0  # seconds; only a test that fails waits so long


def run(body):
    """Runs the body in a thread of its own, so that a deadlock fails instead of hanging; gives what it raised."""
    raised = []

    def guarded():
        try:
            body()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=guarded, daemon=True)
    thread.start()
    thread.join(WAIT)
    assert not thread.is_alive(), "it waits for ever"
    return raised[0] if raised else None


@pytest.mark.parametrize("threaded", [True, False])
def test_jobs_are_written_once_in_order_and_all_before_the_end(threaded):
    done = []
    with Writer(lambda job: (time.sleep(0.001 * (job % 3)), done.append(job)), "abcd", threaded=threaded) as writer:
        for job in range(50):
            writer.put(writer.free_slot(), job)
    assert done == list(range(50))


def test_it_is_another_thread_that_writes():
    names = set()
    with Writer(lambda job: names.add(threading.current_thread().name), "ab") as writer:
        writer.put(writer.free_slot(), 1)
    assert names == {"writer"} and "writer" not in {thread.name for thread in threading.enumerate()}


def test_who_is_faster_than_the_disk_waits_for_it():
    """Never more jobs on their way than there are slots, and no slot in two jobs at once."""
    gate, held, most = threading.Semaphore(0), [], []

    def write(slot):
        assert gate.acquire(timeout=WAIT)
        held.remove(slot)

    def body():
        with Writer(write, [0, 1, 2]) as writer:
            for _ in range(10):
                if len(held) == 3:
                    gate.release()  # the disk is done with one only when nothing else could go on
                slot = writer.free_slot()
                assert slot not in held
                held.append(slot)
                most.append(len(held))
                writer.put(slot, slot)
            for _ in range(3):
                gate.release()

    assert run(body) is None
    assert max(most) == 3 and held == []


class Full(OSError):
    pass


def failing(at, done, error=Full):
    def write(job):
        if job == at:
            raise error(f"at {job}")
        done.append(job)

    return write


@pytest.mark.parametrize("error", [Full, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("slots", [1, 4])
def test_an_error_of_the_disk_stops_the_work_and_is_that_very_error(slots, error):
    done, computed = [], []

    def body():
        with Writer(failing(3, done, error), list(range(slots))) as writer:
            for job in range(1000):
                slot = writer.free_slot()
                computed.append(job)
                writer.put(slot, job)
                time.sleep(0.001)

    raised = run(body)
    assert type(raised) is error and raised.args == ("at 3",)
    assert done == [0, 1, 2], "what was behind it is dropped"
    assert len(computed) < 900, "it is noticed at the next unit, not at the end"
    assert slots > 1 or computed == [0, 1, 2, 3], "before anything is computed for a slot that came back"


def test_an_error_in_the_last_job_is_not_lost():
    done = []

    def body():
        with Writer(failing(2, done), "ab") as writer:
            for job in range(3):
                writer.put(writer.free_slot(), job)

    assert isinstance(run(body), Full) and done == [0, 1]


@pytest.mark.parametrize("error", [ArithmeticError, KeyboardInterrupt])
@pytest.mark.parametrize("slots", [1, 4])
def test_an_error_of_the_forward_leaves_what_was_put_written(slots, error):
    """Ctrl-C between two units, with a disk that is slow: the units in hand are finished, and nothing waits."""
    done = []

    def body():
        with Writer(lambda job: (time.sleep(0.01), done.append(job)), list(range(slots))) as writer:
            for job in range(10):
                slot = writer.free_slot()
                if job == 6:
                    raise error("of the forward")
                writer.put(slot, job)

    raised = run(body)
    assert type(raised) is error and done == list(range(6))


def test_when_both_fail_the_forwards_error_is_raised():
    """The disk fails while the last units are drained: what stopped the work is what is said."""

    def body():
        with Writer(failing(0, [], Full), "abcd") as writer:
            writer.put(writer.free_slot(), 0)
            raise ArithmeticError("first")

    assert isinstance(run(body), ArithmeticError)


def test_a_second_interrupt_does_not_wait_for_the_disk(monkeypatch):
    started, gate, done = threading.Event(), threading.Event(), []

    def write(job):
        started.set()
        assert gate.wait(WAIT)
        done.append(job)

    def impatient(self, timeout=None):
        raise KeyboardInterrupt("second")

    writer = Writer(write, "ab")
    with pytest.raises(KeyboardInterrupt, match="second"), writer:
        writer.put(writer.free_slot(), 0)
        writer.put(writer.free_slot(), 1)
        assert started.wait(WAIT)
        monkeypatch.setattr(threading.Thread, "join", impatient)
    monkeypatch.undo()
    gate.set()
    writer._thread.join(WAIT)
    assert done == [0], "the job in hand ends by itself, the other is dropped"
