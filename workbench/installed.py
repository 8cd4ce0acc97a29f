"""environment: what this machine has: versions, device, optional parts. What a bug report needs, and no secret."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from typing import Any

from stores import provenance


@dataclass(frozen=True)
class Part:
    """A package that not everybody needs: what for, and what installs it."""

    serves: str
    install: str


OPTIONAL = {
    "transformer-lens": Part('backend="transformer_lens"', "pip install transformer-lens"),
    "nnsight": Part('backend="nnsight"', "pip install nnsight"),
    "openai": Part('judges and models behind a server, "openai:MODEL"', "pip install -e '.[judge]'"),
    "ray": Part('engine="ray"', "pip install -e '.[ray]'"),
    "torchvision": Part("processors that insist on it", "pip install -e '.[vision]'"),
    "triton": Part("kernels on an NVIDIA GPU", "comes with a CUDA build of torch"),
    "pandas": Part("to_pandas()", "pip install pandas"),
    "xarray": Part("to_xarray()", "pip install xarray h5netcdf"),
}
REQUIRED = (
    "torch", "transformers", "peft", "accelerate", "safetensors", "tokenizers", "numpy", "scipy", "h5py", "einops",
    "scikit-learn", "matplotlib", "jaxtyping", "pillow", "jinja2", "pyyaml", "tqdm", "xxhash",
)  # fmt: skip


def environment() -> dict[str, Any]:
    """Versions (None: absent), platform, cores, device, optional parts with the command that installs them, the commit
    of a checkout, and the environment variables that change numbers; JSON-plain. `workbench env` prints it."""
    from workbench import __version__

    told = provenance.collect()
    return {
        "workbench": __version__,
        **{name: told[name] for name in ("python", "platform", "machine", "cpus", "git", "environment")},
        "packages": {name: _version(name) for name in REQUIRED},
        "optional": {
            name: {"version": _version(name), "for": part.serves, "install": part.install}
            for name, part in OPTIONAL.items()
        },
        "device": _device(),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _device() -> dict[str, Any]:
    """What models go to when nothing is said, and how wide a CPU works; without torch what came of its import."""
    try:
        import torch
    except ImportError as error:
        return {"kind": "none", "torch": str(error)}
    if not torch.cuda.is_available():
        return {"kind": "cpu", "threads": torch.get_num_threads(), "CUDA": torch.version.cuda}
    first = torch.cuda.get_device_properties(0)
    return {
        "kind": "cuda",
        "name": first.name,
        "count": torch.cuda.device_count(),
        "GiB": round(first.total_memory / 2**30, 1),
        "capability": f"{first.major}.{first.minor}",
        "CUDA": torch.version.cuda,
        "threads": torch.get_num_threads(),
    }
