"""CUDA graphs on a CPU, as far as their rules go: a capture lists the operations and the memory that they read and
write; a replay repeats them there, without any Python. What a capture forbids is refused here too."""

from __future__ import annotations

from contextlib import contextmanager, nullcontext

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

# Each makes the host wait for the device, or copies what only the host has.
WAITS = ("_local_scalar_dense", "nonzero", "unique", "item", "lift_fresh", "masked_select", "is_nonzero", "equal")


class Refused(RuntimeError):
    """operation not permitted when stream is capturing"""


class Recording(TorchDispatchMode):
    def __init__(self, operations):
        super().__init__()
        self.operations = operations

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if any(name in function.__name__ for name in WAITS):
            raise Refused(f"{function} is not permitted when stream is capturing")
        result = function(*args, **kwargs)
        self.operations.append((function, args, kwargs, result))
        return result


class Graph:
    """In place of torch.cuda.CUDAGraph."""

    def __init__(self):
        self.operations, self.replays = [], 0

    def replay(self):
        """Every operation again, its result written where the capture left its own."""
        self.replays += 1
        for function, args, kwargs, result in self.operations:
            before, _ = tree_flatten(result)
            after, _ = tree_flatten(function(*args, **kwargs))
            for old, new in zip(before, after, strict=True):
                if isinstance(old, torch.Tensor) and new.data_ptr() != old.data_ptr():
                    old.copy_(new)


class Stream:
    def __init__(self, name):
        self.name = name


def recorded_graphs(monkeypatch):
    """torch.cuda as `hooks.cuda_graph` uses it, on the CPU. Gives what happened, in order, and the streams that were
    entered and not left."""
    happened, streams = [], ["default"]
    Stream.wait_stream = lambda self, other: happened.append(f"{self.name} waits for {other.name}")

    @contextmanager
    def on(stream):
        before = list(streams)
        streams.append(stream.name)
        happened.append(f"on {stream.name}")
        try:
            yield
        finally:
            streams[:] = before

    @contextmanager
    def graph(made, capture_error_mode):
        happened.append(f"capture {capture_error_mode}")
        streams.append("capture")
        with Recording(made.operations):
            yield
        streams.pop()  # not where the body raised: torch ends the capture first, and that raises in its turn
        happened.append("captured")

    fakes = {
        "Stream": lambda device: Stream("side"),
        "current_stream": lambda device: Stream(streams[-1]),
        "stream": on,
        "CUDAGraph": Graph,
        "graph": graph,
        "device": lambda device: nullcontext(),
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    return happened, streams
