"""The benchmarks on a GPU, at the shapes of Gemma3-4B and Qwen2.5-7B (random weights, bfloat16), in one command that
needs only the checkout and the packages that it imports:

    python tests/bench/gpu.py                        # everything; keeps the numbers in tests/bench/results/
    python tests/bench/gpu.py --quick --only capture # fewer prompts, one benchmark
    python tests/bench/gpu.py --device cpu --tiny    # shows, without a GPU, that every script runs

Beside the numbers it leaves a profile of one capture: which operations the time goes to.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import gpu_profile
import run


def main(arguments: Sequence[str] | None = None) -> int:
    asked = run.parser("gpu", device="cuda").parse_args(arguments)
    asked.save = not asked.tiny
    asked.only = asked.only or run.ON_GPU
    code = run.measured(asked)
    gpu_profile.write(asked.device, asked.tiny)
    return code


if __name__ == "__main__":
    sys.exit(main())
