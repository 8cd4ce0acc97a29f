"""The TransformerLens back end: what is measured and edited is a run of TransformerLens' own TransformerBridge, through
its hook points; the bookkeeping of a run is that of the Hugging Face back end.

A bridge rebuilds the model that it wraps: blocks and norms are replaced by its own, attention is computed eagerly
(about 1e-6 of a residual from the fused kernels in float32). So a module that a user passes is copied, and only the
copy is wrapped.
"""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, contextmanager
from types import SimpleNamespace
from typing import Any, NoReturn

from torch import Tensor, nn

from hooks.adapters import Adapters
from hooks.backends.hf import HuggingFaceModel
from hooks.blocks import UnsupportedArchitecture
from hooks.encode import Batch
from hooks.engine import Passed, Stop
from hooks.site import Site
from hooks.spot import Spot


class InstallRefused(ImportError):
    """TransformerLens asked for a package that is not installed; it was not allowed to install it."""


class LensModel(HuggingFaceModel):
    """A TransformerBridge whose residual stream can be read and edited (the protocol `TracedModel`). Text only."""

    reads_images = False

    def __init__(
        self,
        module: nn.Module,
        tokenizer: Any,
        processor: Any,
        *,
        name: str,
        identity: dict[str, Any],
        adapters: Adapters | None = None,
        wrapper: Any = None,
    ) -> None:
        if adapters is not None:
            raise ValueError(
                "backend='transformer_lens' takes no adapters: a bridge splits and copies attention weights, which a "
                "LoRA inside them would not follow. Expected backend='hf' or 'nnsight', or a model into which the "
                "adapter was merged."
            )
        _library()
        super().__init__(module, tokenizer, processor, name=name, identity=identity)
        self.towers = {"language": self.towers["language"]}
        self._found["injected"] = ()  # text alone brings no image features into the stream
        self.bridge = wrapper if wrapper is not None else _bridge(module, tokenizer, name)
        if set_by_user := _hooked_by_others(self.bridge):
            raise ValueError(
                f"the bridge has hooks of its own at {', '.join(set_by_user)}, which no result would state: expected "
                "bridge.reset_hooks(including_permanent=True) first; give such edits to run, generate or sweep."
            )
        attention = getattr(module.config, "_attn_implementation", None)
        self.identity = {**identity, "backend": "transformer_lens", "attention": attention}
        if getattr(self.bridge, "compatibility_mode", False):
            self.identity["compatibility_mode"] = True  # weights folded and centred: another residual stream

    @classmethod
    def adopted(cls, module: nn.Module) -> nn.Module:
        """A copy: the bridge takes the module that it wraps to pieces."""
        return copy.deepcopy(module)

    def spot(self, site: Site, *, text_only: bool = True) -> Spot:
        """The hook point of a site. `resid_mid` is edited through `attn_out`, the last thing that was added to it:
        TransformerLens' own point of that name is what the MLP's norm reads, not the stream."""
        self.tower_of(site)
        if site.point == "projector":
            raise UnsupportedArchitecture("backend='transformer_lens' reads text only: use backend='hf' for images.")
        point = self._hook_point(site)
        if site.point == "resid_mid":
            added, start = (self._hook_point(Site(site.layer, other)) for other in ("attn_out", "resid_pre"))
            return Spot(added, "output", added_to=Spot(start, "output"))
        return Spot(point, "output")

    def _hook_point(self, site: Site) -> nn.Module:
        name = f"blocks.{site.layer}.hook_{site.point}"
        point = self.bridge.hook_dict.get(name)
        if point is None:
            raise UnsupportedArchitecture(
                f"site {site} of {type(self.module).__name__}: TransformerLens has no hook point {name} on this "
                "architecture (blocks that add attention and MLP at once have no resid_mid)."
            )
        return point

    def _attach(self, stops: Sequence[Stop], passed: Passed) -> AbstractContextManager[Any]:
        def hook_at(stop: Stop) -> Any:
            def hook(tensor: Tensor, hook: Any) -> Tensor | None:
                new = passed(stop, tensor)
                return None if new is tensor else new

            return hook

        return self.bridge.hooks(fwd_hooks=[(stop[0].name, hook_at(stop)) for stop in stops])

    @contextmanager
    def _ready(self, batch: Batch | None = None) -> Any:
        if batch is not None and batch.image_rows:
            raise ValueError(
                "backend='transformer_lens' reads text only, and these prompts have images: use backend='hf'."
            )
        with super()._ready(batch):
            yield

    def _forward(self, inputs: dict[str, Any]) -> Any:
        ids = inputs.pop("input_ids")
        return SimpleNamespace(logits=self.bridge(ids, return_type="logits", **inputs))

    def _generate(self, inputs: dict[str, Tensor], **options: Any) -> Tensor:
        ids = inputs.pop("input_ids")
        return self.bridge.hf_generate(ids, return_type="tokens", **inputs, **options)


def bridge_given(thing: Any) -> Any:
    """`thing` when it is a TransformerBridge, else None. The library is not imported for the question."""
    library = sys.modules.get("transformer_lens.model_bridge")
    return thing if library is not None and isinstance(thing, library.TransformerBridge) else None


def _bridge(module: Any, tokenizer: Any, name: str) -> Any:
    from transformer_lens.model_bridge.sources import build_bridge_from_module
    from transformer_lens.model_bridge.sources.transformers import determine_architecture_from_hf_config

    module.set_attn_implementation("eager")
    config = copy.deepcopy(module.config)
    config.architectures = [type(module).__name__]  # a module that was never saved does not state it
    try:
        architecture = determine_architecture_from_hf_config(config)
        bridge = build_bridge_from_module(module, architecture, hf_config=config, model_name=name)
    except Exception as error:  # what it does not know it meets in many ways, a missing attribute most often
        raise UnsupportedArchitecture(
            f"TransformerLens could not build a bridge for {type(module).__name__} ({type(error).__name__}: "
            f"{str(error)[:200]}): expected backend='hf' or 'nnsight'."
        ) from error
    # Set afterwards: given to the builder, a tokenizer is read anew from its hub name, to write a BOS before all text.
    bridge.tokenizer = tokenizer
    return bridge


def _hooked_by_others(bridge: Any) -> list[str]:
    """The hook points with hooks on them that TransformerLens did not put there itself."""

    def own(handle: Any) -> bool:
        return str(getattr(handle.user_hook, "__module__", "")).startswith("transformer_lens.")

    return [name for name, handles in bridge.list_hooks().items() if not all(map(own, handles))]


def _library() -> None:
    """Imports TransformerLens, and takes from it the power to install packages: for some image processors it runs pip
    by itself. Our own path never comes there; another in this process might."""
    log = logging.getLogger("transformers")
    level = log.level
    from transformer_lens.model_bridge.sources.transformers import helpers

    log.setLevel(level)  # importing it silences transformers' warnings for the whole process
    helpers._ensure_torchvision = _refuse_install


def _refuse_install() -> NoReturn:
    raise InstallRefused(
        "TransformerLens needs torchvision for this model's image processor and would run 'pip install torchvision' by "
        "itself: the workbench does not let it. Install it yourself: pip install -e '.[vision]'."
    )
