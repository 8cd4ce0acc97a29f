"""Which back end a model runs on: the one that was asked for, or the one that the given object belongs to."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any

from hooks.backends.hf import HuggingFaceModel
from hooks.backends.lens import LensModel, bridge_given
from hooks.backends.nns import NNsightModel, nnsight_given

BACKENDS: dict[str, type[HuggingFaceModel]] = {
    "hf": HuggingFaceModel,
    "transformer_lens": LensModel,
    "nnsight": NNsightModel,
}
LIBRARIES = {"transformer_lens": "transformer-lens", "nnsight": "nnsight"}  # what pip calls those that are not ours


def chosen(backend: str | None, thing: Any) -> tuple[type[HuggingFaceModel], Any, Any]:
    """The back end, the library's own object where `thing` is one (a TransformerBridge, an nnsight model; else None),
    and `thing` itself or the module inside that object. Raises ValueError when object and `backend` disagree, and
    ImportError, with the command that installs it, where the library of the back end is missing."""
    if backend is not None and backend not in BACKENDS:
        why = ""
        if backend == "vllm":  # measured elsewhere: none of these can be seen from outside
            why = " vLLM fuses the residual, skips cached prefixes and runs CUDA graphs past the hooks."
        raise ValueError(f"backend {backend!r} is not available: expected one of {', '.join(BACKENDS)}.{why}")
    wrapper, own, module = None, backend or "hf", thing
    if (bridge := bridge_given(thing)) is not None:
        wrapper, own, module = bridge, "transformer_lens", _inside(bridge)
    elif (envoy := nnsight_given(thing)) is not None:
        wrapper, own, module = envoy, "nnsight", envoy._module
    if backend not in (None, own):
        raise ValueError(
            f"backend={backend!r} was asked for, but the model given is a {type(thing).__name__}: expected "
            f"backend={own!r} (or none: it is found), or the plain module or its folder."
        )
    if own in LIBRARIES and sys.modules.get(own) is None and find_spec(own) is None:
        raise ImportError(
            f"backend={own!r} runs the model by another library, which is not installed: expected "
            f"`pip install {LIBRARIES[own]}`, or backend='hf', which needs none."
        )
    return BACKENDS[own], wrapper, module


def _inside(bridge: Any) -> Any:
    try:
        return bridge.original_model
    except AttributeError:
        raise ValueError(
            f"the bridge runs on {type(bridge._driver).__name__}, outside this process: expected one that holds its "
            "torch module (TransformerBridge.boot_transformers)."
        ) from None
