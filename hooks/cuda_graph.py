"""A body of GPU work captured once and replayed as one launch."""

from __future__ import annotations

from collections.abc import Callable

import torch


def warmed(body: Callable[[], None], device: torch.device) -> None:
    """Runs `body` on a side stream, so that its kernels are compiled and its libraries ready before a capture."""
    with torch.cuda.device(device):
        side, here = torch.cuda.Stream(device), torch.cuda.current_stream(device)
        side.wait_stream(here)
        with torch.cuda.stream(side):
            body()
        here.wait_stream(side)


def captured(body: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """What replays `body` on the device's current stream; the capture itself computes nothing.

    Its Python runs no more: it must read and write the same tensors every time, and never wait for the device (raises
    RuntimeError where it does).
    """
    graph = torch.cuda.CUDAGraph()
    # A capture that fails leaves its own stream behind as the current one: the outer context puts ours back. Other
    # threads (a writer that copies to the host) go on meanwhile, and are not part of it.
    with (
        torch.cuda.device(device),
        torch.cuda.stream(torch.cuda.current_stream(device)),
        torch.cuda.graph(graph, capture_error_mode="thread_local"),
    ):
        body()
    return graph.replay
