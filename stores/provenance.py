"""Where numbers came from: versions, machine, command line, commit, seed. Never a secret."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from stores.canonical import plain

PACKAGES = (
    "misalignment-workbench", "numpy", "scipy", "h5py", "xxhash", "torch", "triton", "transformers", "tokenizers",
    "peft", "safetensors", "accelerate", "transformer-lens", "nnsight", "scikit-learn", "jaxtyping", "openai",
)  # fmt: skip
ENVIRONMENT = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "CUBLAS_WORKSPACE_CONFIG",
    "PYTHONHASHSEED", "PYTORCH_CUDA_ALLOC_CONF", "TOKENIZERS_PARALLELISM", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE",
    "RANK", "WORLD_SIZE", "SLURM_JOB_ID", "SLURM_ARRAY_TASK_ID",
)  # fmt: skip
REDACTED = "<redacted>"

_SECRET_NAME = re.compile(
    r"(?:^|[_\-.])(?:api[_\-]?key|key|token|secret|password|passwd|credentials?|auth)s?$", re.IGNORECASE
)
_HARMLESS_NAME = re.compile(
    r"(?:^|[_\-.])(?:content|unit|pad|eos|bos|image|max|special)[_\-.]?(?:key|token)s?$", re.IGNORECASE
)
_SECRET_SHAPES = re.compile(
    r"\b(?:sk-[A-Za-z0-9_-]{16,}|hf_[A-Za-z0-9]{16,}|AKIA[0-9A-Z]{12,}|gh[pousr]_[A-Za-z0-9]{16,}"
    r"|github_pat_[A-Za-z0-9_]{16,}|xox[abpr]-[A-Za-z0-9-]{10,}|AIza[A-Za-z0-9_-]{30,}"
    r"|eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{5,})"
)
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
    """`value` without secrets: known shapes (hf_..., sk-...), values of *_KEY and *_TOKEN variables, the
    parts of URLs that carry passwords, and anything kept under a secret's name. The home folder becomes `~`.
    Scrubbing twice changes nothing.
    """
    return _scrubbed(value, "", _environment_secrets())


def _scrubbed(value: Any, name: str, known: list[str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _scrubbed(item, str(key), known) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_scrubbed(item, name, known) for item in value]
    if not isinstance(value, str):
        return value
    if value and _names_a_secret(name):
        return REDACTED
    text = value
    for secret in known:
        text = text.replace(secret, REDACTED)
    text = _SECRET_SHAPES.sub(REDACTED, text)
    text = _URL.sub(lambda match: match["scheme"] + match["rest"], text)
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text


def secrets_in(value: Any) -> list[str]:
    """The places inside `value` that hold what looks like a secret: `["model.path"]`."""
    return list(_secrets_in(value, "", _environment_secrets()))


def _secrets_in(value: Any, where: str, known: list[str]) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _secrets_in(item, f"{where}.{key}" if where else str(key), known)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _secrets_in(item, f"{where}[{i}]", known)
    elif isinstance(value, str) and (any(secret in value for secret in known) or _SECRET_SHAPES.search(value)):
        yield where


def _names_a_secret(name: str) -> bool:
    return bool(_SECRET_NAME.search(name)) and not _HARMLESS_NAME.search(name)


def _environment_secrets() -> list[str]:
    """Longest first, so that a secret that contains another leaves no remainder. Short values would redact
    ordinary words."""
    values = {value for name, value in os.environ.items() if _names_a_secret(name) and len(value) >= 8}
    return sorted(values, key=len, reverse=True)


def _command(arguments: list[str]) -> list[str]:
    """The command line; `--token abc` and `--token=abc` lose their value."""
    out, hide_next = [], False
    for argument in arguments:
        flag = _FLAG.fullmatch(argument)
        secret = flag is not None and _names_a_secret(flag["name"])
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
