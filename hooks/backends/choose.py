"""Which back end a model runs on: the one that was asked for, or the one that the given object belongs to."""

from __future__ import annotations

from typing import Any

from hooks.backends.hf import HuggingFaceModel
from hooks.backends.lens import LensModel, bridge_given
from hooks.backends.nns import NNsightModel, nnsight_given

BACKENDS: dict[str, type[HuggingFaceModel]] = {
    "hf": HuggingFaceModel,
    "transformer_lens": LensModel,
    "nnsight": NNsightModel,
}


def chosen(backend: str | None, thing: Any) -> tuple[type[HuggingFaceModel], Any, Any]:
    """The back end, the library's own object where `thing` is one (a TransformerBridge, an nnsight model; else None),
    and `thing` itself or the module inside that object. Raises ValueError when object and `backend` disagree."""
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
    return BACKENDS[own], wrapper, module


def _inside(bridge: Any) -> Any:
    try:
        return bridge.original_model
    except AttributeError:
        raise ValueError(
            f"the bridge runs on {type(bridge._driver).__name__}, outside this process: expected one that holds its "
            "torch module (TransformerBridge.boot_transformers)."
        ) from None
