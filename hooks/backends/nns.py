"""The nnsight back end: what is measured and edited is an nnsight trace, through its envoys; the bookkeeping of a run
is that of the Hugging Face back end.

nnsight runs the body of a `with` block in step with the model: reading `envoy.output` waits for the module, assigning
to it changes what goes on. Every place has a block of its own here, so that their order does not matter, and reads
again for every decoding step. Importing nnsight gives every object of the process a `.save` and wraps
`Tensor.backward`: another reason to import it only here, and only when it is asked for.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn

from hooks.adapters import Adapters
from hooks.backends.hf import HuggingFaceModel
from hooks.encode import Batch
from hooks.engine import Passed, Stop

# How nnsight says that a loop over all steps has ended: not news to anybody.
_LOOP_ENDED = ".*was never reached: the loop asked for a step the run did not make.*"


class NNsightModel(HuggingFaceModel):
    """An nnsight model whose residual stream can be read and edited (the protocol `TracedModel`).

    The module stays usable as it was; nnsight puts a controller in front of each forward, which does nothing outside a
    trace.
    """

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
        import nnsight

        super().__init__(module, tokenizer, processor, name=name, identity=identity, adapters=adapters)
        if wrapper is not None and wrapper._edits:
            raise ValueError(
                f"the nnsight model has {len(wrapper._edits)} edits of its own (model.edit), which no result would "
                "state: expected model.clear_edits() first; give such edits to run, generate or sweep."
            )
        # Envoys of our own around the same module, which both may trace: a language model of nnsight's would pad what
        # it is given, and number its positions, in its own way.
        self.envoy: Any = nnsight.NNsight(module)
        self.identity = {**identity, "backend": "nnsight"}
        self._envoys = {id(envoy._module): envoy for envoy in self.envoy.modules()}
        self._waiting: tuple[Sequence[Stop], Passed] = ((), lambda stop, held: held)

    def _features_during(self, batch: Batch | None) -> AbstractContextManager[None]:
        return nullcontext()  # an nnsight trace may look into the vision tower, so it runs every time

    def _forward(self, inputs: dict[str, Any]) -> Any:
        return self._traced(lambda: self.module(**inputs))

    def _generate(self, inputs: dict[str, Tensor], **options: Any) -> Tensor:
        return self._traced(lambda: self.module.generate(**inputs, **options))  # type: ignore[operator]

    @contextmanager
    def _attach(self, stops: Sequence[Stop], passed: Passed) -> Iterator[None]:
        # nnsight hooks by tracing a call, so what is to be hooked waits for the call.
        before, self._waiting = self._waiting, (stops, passed)
        try:
            yield
        finally:
            self._waiting = before

    def _traced(self, call: Callable[[], Any]) -> Any:
        import nnsight
        from nnsight.intervention.interleaver import OutOfOrderError

        stops, passed = self._waiting
        places = [(stop, self._envoys[id(stop[0])]) for stop in stops]
        result = None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=_LOOP_ENDED)
            try:
                with self.envoy.trace(fn=call) as tracer:
                    for stop, envoy in places:
                        with tracer.invoke():
                            for _ in tracer.iter[:]:
                                if stop[1] == "input":
                                    held = envoy.inputs
                                    new = passed(stop, held)
                                    if new is not held:
                                        envoy.inputs = new
                                else:
                                    held = envoy.output
                                    new = passed(stop, held)
                                    if new is not held:
                                        envoy.output = new
                    with tracer.invoke():
                        result = nnsight.save(tracer.result)
            except OutOfOrderError:
                return None  # a place was never passed: the visit says which, in our words
        return result


def nnsight_given(thing: Any) -> Any:
    """`thing` when it is an nnsight model, its weights loaded; else None. The library is not imported for the
    question."""
    library = sys.modules.get("nnsight")
    if library is None or not isinstance(thing, library.Envoy):
        return None
    if not getattr(thing, "dispatched", True):
        thing.dispatch()  # nnsight loads weights at the first trace
    if not hasattr(thing._module, "config"):
        raise ValueError(
            f"{thing.path} is a part of an nnsight model, without a config: expected the whole model, which is "
            f"{type(thing.root).__name__} at its root."
        )
    return thing
