"""One decoding step as a function of tensors that stay where they are, and the loop that repeats it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks.asked import TOLERANCE, distance
from hooks.cuda_graph import captured, warmed
from hooks.decoding import NotStatic, StepClock
from hooks.model import Tally
from hooks.static_cache import FixedCache

SCORED = ("suppress_tokens", "temperature", "top_k", "top_p")  # read scores alone, not what was written before
LOOKS = 16  # steps between two looks at whether all rows have ended: on a GPU each makes the host wait


class StaticStep:
    """One decoding step as a function of tensors that stay where they are: the token to read, its positions, the rows
    that have not ended, the cache, the counts of the edits."""

    def __init__(self, module: Any, kwargs: Mapping[str, Any], clock: StepClock, options: Mapping[str, Any]) -> None:
        """From the arguments of the library's own first decoding step, just before it runs."""
        names = ("input_ids", "position_ids", "attention_mask", "past_key_values")
        token, position_ids, mask, grown = (kwargs.get(name) for name in names)
        if token is None or position_ids is None or grown is None:
            raise NotStatic("it takes no position_ids and past_key_values", lasting=True)
        self._module, self._clock, self._prompt = module, clock, clock.prompt
        self._new = options["max_new_tokens"]
        self._fixed = FixedCache(module.config, grown, mask, self._new - 1)
        self._others = {name: value for name, value in kwargs.items() if name not in names}
        for name, value in self._others.items():
            if isinstance(value, Tensor) and self._fixed.columns + 1 in value.shape:
                raise NotStatic(f"its argument {name} grows with the text", lasting=True)
        self.token, self.position_ids = token.clone(), position_ids.clone()
        self.alive, self.at = clock.alive.clone(), clock.place.clone()
        device = token.device
        stops = options.get("eos_token_id")
        self._stop = torch.tensor([] if stops is None else stops, dtype=torch.long, device=device)
        self._pad = options["pad_token_id"]
        self._processors = processors(options, device)
        self._samples = bool(options["do_sample"])
        self.written = torch.zeros(len(token), self._new, dtype=torch.long, device=device)
        self.count = torch.ones(1, dtype=torch.long, device=device)  # tokens written: the first is about to be read

    def loop(
        self,
        written: Int[Tensor, "row 2"],
        logits: Float[Tensor, "row vocab"],
        tallies: Sequence[Tally],
        *,
        graph: bool,
    ) -> Int[Tensor, "row n"]:
        """The answers, of which the library wrote the first two tokens; `logits` are its own of the second, which the
        step must give as well (NotStatic). The tallies go on counting; with `graph` a CUDA graph makes the steps."""
        self.logits = torch.empty_like(logits, dtype=torch.float32)
        counts = [tally.on(self.token.device) for tally in tallies]
        places = [self.token, self.position_ids, self.alive, self.at, self.count, self._fixed.column]
        self._state = [*places, self.written, *(part for parts in counts for part in parts)]
        self.written[:, :2] = written
        first = self._saved()
        attempted(self.step)
        self._compare(logits, "the first step on a static cache")
        self._restore(first)
        self._advance(written[:, 1])
        run = self._graphed(first, logits) if graph else self._step_and_choose
        looks = LOOKS if graph or self.token.device.type == "cuda" else 1
        for n in range(2, self._new):
            if n % looks == 0 and not bool(self.alive.any()):
                return self.written[:, :n]
            run()
        return self.written

    def step(self) -> None:
        """Reads the token, and leaves the logits that choose the next one."""
        self._clock.tokens = self._prompt.step(self.token, torch.where(self.alive[:, None], self.at, -1))
        out = self._module(
            input_ids=self.token,
            position_ids=self.position_ids,
            attention_mask=self._fixed.masks(),
            past_key_values=self._fixed.cache,
            **self._others,
        )
        self.logits.copy_(out.logits[:, -1])

    def _choose(self) -> None:
        scores = self.logits
        for processor in self._processors:
            scores = processor(None, scores)
        if self._samples:
            self._advance(torch.multinomial(scores.softmax(dim=-1), num_samples=1)[:, 0])
        else:
            self._advance(scores.argmax(dim=-1))

    def _advance(self, chosen: Tensor) -> None:
        """Makes the chosen tokens those that the next step reads; a row that has ended goes on with pads."""
        chosen = torch.where(self.alive, chosen, self._pad)
        self.alive &= ~(chosen[:, None] == self._stop).any(dim=-1)
        self.written.index_copy_(1, self.count, chosen[:, None])
        self.token.copy_(chosen[:, None])
        for place in (self.position_ids, self.at, self.count, self._fixed.column):
            place += 1

    def _step_and_choose(self) -> None:
        self.step()
        self._choose()

    def _graphed(self, first: list[Tensor], logits: Tensor) -> Callable[[], None]:
        """The step as a CUDA graph, with the choice where that is the argmax. A graph repeats what its capture saw, so
        it must give the logits of two steps, not of one."""
        whole, device = not self._samples and not self._processors, self.token.device
        body = self._step_and_choose if whole else self.step
        second = self._saved()
        attempted(lambda: warmed(body, device))
        places = [(first, logits), (second, self.logits.clone())]
        self._restore(second)
        replay = attempted(lambda: captured(body, device))
        for place, expected in places:
            self._restore(place)
            replay()
            self._compare(expected, "a replayed CUDA graph")
        self._restore(second)
        return replay if whole else lambda: (replay(), self._choose())[1]

    def _compare(self, expected: Tensor, what: str) -> None:
        off = distance(self.logits, expected)
        if off > TOLERANCE.get(self._fixed.dtype, 1e-4):
            raise NotStatic(f"{what} gave other logits (by {off:.1e})")

    def _saved(self) -> list[Tensor]:
        return [part.clone() for part in self._state]

    def _restore(self, saved: Sequence[Tensor]) -> None:
        for part, before in zip(self._state, saved, strict=True):
            part.copy_(before)


def attempted(body: Callable[[], Any]) -> Any:
    """What the body gives; raises NotStatic for whatever it raises but a full memory."""
    try:
        return body()
    except (NotStatic, torch.OutOfMemoryError):
        raise
    except Exception as error:  # what a model does not expect of a static cache it says in many ways
        raise NotStatic(f"{type(error).__name__}: {str(error)[:120]}", lasting=True) from error


def processors(options: Mapping[str, Any], device: torch.device) -> list[Any]:
    """What changes the scores, in the order in which `generate` does."""
    from transformers.generation import logits_process as processing

    found: list[Any] = []
    given = {name: options.get(name) for name in SCORED}
    if given["suppress_tokens"] is not None:
        found.append(processing.SuppressTokensLogitsProcessor(given["suppress_tokens"], device=str(device)))
    if options["do_sample"]:
        if given["temperature"] not in (None, 1.0):
            found.append(processing.TemperatureLogitsWarper(given["temperature"]))
        if given["top_k"]:
            found.append(processing.TopKLogitsWarper(given["top_k"]))
        if given["top_p"] is not None and given["top_p"] < 1.0:
            found.append(processing.TopPLogitsWarper(given["top_p"]))
    return found
