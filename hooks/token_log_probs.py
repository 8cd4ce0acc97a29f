"""Log-probabilities of the tokens of given texts. The head reads the wanted positions alone, some at a time, so that no
[row, pos, vocab] of a batch is ever held."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks.blocks import UnsupportedArchitecture
from hooks.encode import Batch
from hooks.model import Edits, Trace
from hooks.patched import patched
from hooks.positions import Scope

# Float32 logits that are held at once, in bytes; a few copies of them live beside.
CPU_CHUNK, GPU_CHUNK = 2**26, 2**28
AGREES = 0.02  # of the largest logit: what two shapes of one bfloat16 product differ by, and no other scale of logits


@dataclass(frozen=True)
class TokenLogProbs:
    """The tokens of a scope in one row, in order. `log_prob` is log p(token | what stands before it), in nats; `mean`
    and `sd` are those of log p under the same next-token distribution, over the vocabulary (`-mean` is its entropy).
    float32 on the CPU."""

    ids: Int[Tensor, " n"]
    log_prob: Float[Tensor, " n"]
    mean: Float[Tensor, " n"]
    sd: Float[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.ids)


def token_log_probs(
    model: Any, batch: Batch, scope: Scope = "response", edits: Edits | None = None, *, must_edit: bool = True
) -> tuple[list[TokenLogProbs], Trace]:
    """The log-probabilities of the tokens of `scope`, one entry a row, and the Trace of their forward.

    A scope names the tokens that are predicted ("response", "all", a regex, ...), not the positions that predict them.
    Nothing predicts a row's first token, and images are not predicted: both are left out. One forward under `edits`,
    padded right; everything behind the body (head, scales and caps of logits) is the model's own code, on at most 64
    MiB of float32 logits at once (256 on a GPU). Raises ValueError for rows with variants of their own,
    UnsupportedArchitecture where the model has no body of its own below the head, NothingEdited as `run` does.
    """
    if isinstance(model.active, tuple):
        raise ValueError("the rows of this view have variants of their own: expected model.variant(name), one a call.")
    batch = batch.padded("right")
    tokens = batch.tokens
    rows, columns = (tokens.mask(scope) & (tokens.position > 0) & ~tokens.is_image).nonzero(as_tuple=True)
    ids = tokens.input_ids[rows, columns]
    last = batch.last_index
    head = _Head(model)
    with_last = torch.cat([torch.arange(len(batch)), rows]), torch.cat([last, columns - 1])
    trace = model.run(batch, edits=edits, must_edit=must_edit, through=head.reading(with_last, ids))
    assert trace.logits is not None and head.of_last is not None and head.found is not None
    _refuse_other_logits(head.of_last, trace.logits)
    counts = torch.bincount(rows, minlength=len(batch)).tolist()
    parts = zip(*(part.split(counts) for part in (ids, *head.found)), strict=True)
    return [TokenLogProbs(*part) for part in parts], trace


class _Head:
    """What a model does behind its body, run again on vectors that its body gave."""

    def __init__(self, model: Any) -> None:
        self._module, self._body = model.module, getattr(model.module, "base_model", model.module)
        if self._body is self._module:
            raise UnsupportedArchitecture(
                f"{type(self._module).__name__} has no body of its own below its head (base_model): expected a Hugging "
                "Face model for text generation."
            )
        self._bytes = CPU_CHUNK if model.device.type == "cpu" else GPU_CHUNK
        self._output: Any = None
        self.of_last: Tensor | None = None
        self.found: tuple[Tensor, ...] | None = None

    @contextmanager
    def reading(self, places: tuple[Tensor, Tensor], ids: Int[Tensor, " n"]) -> Iterator[None]:
        """Around a forward of `run`: reads it when it is over, while its adapters still act. The first places are each
        row's last token, the others those that predict `ids`."""

        def keep(module: Any, args: Any, output: Any) -> None:
            self._output = output

        handle = self._body.register_forward_hook(keep)
        try:
            yield
        finally:
            handle.remove()
        if self._output is None:
            raise UnsupportedArchitecture(
                f"the forward of this back end did not pass the body of {type(self._module).__name__}: expected "
                "load_model(..., backend='hf')."
            )
        states = self._output[0]
        rows, columns = (part.to(states.device) for part in places)
        vectors, n_rows = states[rows, columns], len(rows) - len(ids)
        self.of_last = self.logits(vectors[:n_rows])
        self.found = self._read(vectors[n_rows:], ids.to(states.device))
        self._output = None

    def _read(self, vectors: Float[Tensor, "n d_model"], ids: Int[Tensor, " n"]) -> tuple[Tensor, ...]:
        assert self.of_last is not None
        most = max(1, self._bytes // (4 * self.of_last.shape[-1]))
        chunks = zip(vectors.split(most), ids.split(most), strict=True)
        parts = [moments_of(self.logits(some), chosen) for some, chosen in chunks if len(chosen)]
        empty = [torch.zeros(0)] * 3
        return tuple(torch.cat(part) for part in zip(*parts, strict=True)) if parts else tuple(empty)

    def logits(self, vectors: Float[Tensor, "n d_model"]) -> Float[Tensor, "n vocab"]:
        """The logits behind these outputs of the body."""
        given = vectors[None]  # one row of n positions

        def body(*args: Any, **kwargs: Any) -> Any:
            if isinstance(self._output, tuple):
                return (given, *self._output[1:])
            output = copy.copy(self._output)
            output.last_hidden_state = given
            return output

        ids = torch.zeros(given.shape[:2], dtype=torch.long, device=given.device)
        with patched({self._body: body}):
            return self._module(input_ids=ids).logits[0]


def moments_of(
    logits: Float[Tensor, "n vocab"], ids: Int[Tensor, " n"]
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"]]:
    """log p of each id, and mean and standard deviation of log p under p; float32, on the CPU. The logits are
    overwritten."""
    top, at = logits.max(dim=-1, keepdim=True)
    shifted = logits.float().sub_(top.float())
    # The top's own 1 stays out of the sum: of a token that is all but sure, log1p keeps every digit of log p.
    p = shifted.exp().scatter_(1, at, 0.0)
    rest = p.sum(dim=-1, keepdim=True)
    log_p = shifted.sub_(rest.log1p())
    chosen = log_p.gather(1, ids[:, None])[:, 0]
    p = p.scatter_(1, at, 1.0).div_(1 + rest)
    log_p.clamp_min_(-1e4)  # p is 0 there, and 0 · inf would be NaN
    mean = (p * log_p).sum(dim=-1)
    sd = log_p.sub_(mean[:, None]).square_().mul_(p).sum(dim=-1).sqrt()
    return chosen.cpu(), mean.cpu(), sd.cpu()


def _refuse_other_logits(ours: Float[Tensor, "row vocab"], own: Float[Tensor, "row vocab"]) -> None:
    """The head on the body's output must say what the forward itself said (where that is a number at all)."""
    numbers = own.isfinite()
    if not bool(numbers.any()):
        return
    apart, scale = float((ours - own)[numbers].float().abs().max()), float(own[numbers].float().abs().max())
    if not apart <= AGREES * scale:
        raise UnsupportedArchitecture(
            f"behind this model's body stands more than its head: logits differ by {apart:.3g}, where the largest is "
            f"{scale:.3g}; expected {AGREES:.0%} or less of that."
        )
