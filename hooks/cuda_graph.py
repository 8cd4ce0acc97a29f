"""A body of GPU work captured once and replayed as one launch."""

from __future__ import annotations

from collections.abc import Callable

import torch


def captured(body: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """What replays `body` on the device's current stream. The body runs once, on a side stream, so that kernels are
    compiled and libraries ready before the capture, which runs nothing.

    Its Python runs no more: it must read and write the same tensors every time and never wait for the device. Raises
    RuntimeError where it does wait.
    """
    with torch.cuda.device(device):
        side, here = torch.cuda.Stream(device), torch.cuda.current_stream(device)
        side.wait_stream(here)
        with torch.cuda.stream(side):
            body()
        here.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Other threads (a writer that copies to the host) go on meanwhile, and are not part of it.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            body()
    return graph.replay
