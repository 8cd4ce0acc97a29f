"""undisturbed: what a model is asked while it trains leaves the training as it would have been, bit for bit."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """While the body runs, every part of the module is in eval mode (no dropout) and no gradient is recorded; then the
    modes of its parts and the random generators (torch on every device, numpy, Python) are again what they were."""
    modes = {part: part.training for part in module.modules()}
    cpu, cuda = torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    drawn, plain = np.random.get_state(), random.getstate()
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes.items():
            part.training = training
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        np.random.set_state(drawn)
        random.setstate(plain)
