"""Where numbers came from: versions, machine, command line, commit, seed. Never a secret."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from stores.canonical import plain
from stores.secret_text import REDACTED, names_a_secret, redacted, secrets_in

__all__ = ["collect", "scrubbed", "secrets_in"]

PACKAGES = (
    "misalignment-workbench", "numpy", "scipy", "h5py", "xxhash", "torch", "triton", "transformers", "tokenizers",
    "peft", "safetensors", "accelerate", "transformer-lens", "nnsight", "scikit-learn", "jaxtyping", "openai",
)  # fmt: skip
ENVIRONMENT = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG",
    "PYTHONHASHSEED", "PYTORCH_CUDA_ALLOC_CONF", "TOKENIZERS_PARALLELISM", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE",
    "RANK", "WORLD_SIZE", "SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID",
)  # fmt: skip
_URL = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*://)(?:[^/\s@]+@)?(?P<rest>[^\s?#]*)(?:\?[^\s#]*)?(?:#\S*)?", re.IGNORECASE
)
_FLAG = re.compile(r"--?(?P<name>[A-Za-z][\w-]*)(?P<value>=.*)?", re.DOTALL)


def collect(**facts: Any) -> dict[str, Any]:
    """What a store or a table writes about its origin, JSON-plain and scrubbed; `facts` (seed, model,
    threads) come first.

    Environment variables are taken from an allow-list; secrets in the command line or in `facts` become "<redacted>".
    """
    return scrubbed(
        plain(
            {
                **facts,
                "created_utc": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                "command": _command(sys.argv),
                "python": platform.python_version(),
                "platform": platform.platform(),
                "machine": platform.machine(),
                "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
                "versions": dict(_versions()),
                "git": _git(Path(__file__).resolve().parent.parent),
                "environment": {name: os.environ[name] for name in ENVIRONMENT if name in os.environ},
            }
        )
    )


def scrubbed(value: Any) -> Any:
    """`value` without secrets (`redacted`), and without the parts of URLs that carry passwords. The home folder becomes
    `~`. Scrubbing twice changes nothing.
    """
    return _plain_places(redacted(value))


def _plain_places(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain_places(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain_places(item) for item in value]
    if not isinstance(value, str):
        return value
    text = _URL.sub(lambda match: match["scheme"] + match["rest"], value)
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text


def _command(arguments: list[str]) -> list[str]:
    """The command line; `--token abc` and `--token=abc` lose their value."""
    out, hide_next = [], False
    for argument in arguments:
        flag = _FLAG.fullmatch(argument)
        secret = flag is not None and names_a_secret(flag["name"])
        if hide_next and not argument.startswith("-"):
            out.append(REDACTED)
        elif secret and flag is not None and flag["value"]:
            out.append(f"{argument[: -len(flag['value'])]}={REDACTED}")
        else:
            out.append(argument)
        hide_next = secret and flag is not None and not flag["value"]
    return out


@cache
def _versions() -> dict[str, str]:
    """Read once a process: finding every package's metadata takes as long as a small capture."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _git(folder: Path) -> dict[str, Any] | None:
    """Commit of this code and whether files differ from it; None outside a repository (an installed wheel)."""
    if not (folder / ".git").exists():
        return None
    try:
        commit, status = (
            subprocess.run(
                ["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=True
            ).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(status)}
