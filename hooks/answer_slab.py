"""AnswerSlab: the residuals of answers while they are being written, [layer, row, step, d_model] in one piece; every
decoding step is written into its place."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from hooks.encoded import Encoded
from hooks.model import Keep, Where
from hooks.pool import Picked

SCOPES = ("response", "answering")


class AnswerSlab:
    """What a generation passes at the scope `response` (the forwards that read the tokens of the answer) or `answering`
    (those that choose them: the prompt's, then all but the last). Rows are padded left, as `generate` has them."""

    def __init__(
        self, scope: str, layers: int, rows: int, steps: int, d_model: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        if scope not in SCOPES:
            raise ValueError(f"scope {scope!r} is not written while generating: expected {' or '.join(SCOPES)}.")
        self.scope, self.steps = scope, steps
        # Zeros: a step that no row reached weighs 0 in a mean, and 0 times what lies in fresh memory may be NaN.
        self.values: Float[Tensor, "layer row step d_model"] = torch.zeros(
            (layers, rows, steps, d_model), dtype=dtype, device=device
        )
        self._forwards = [0] * layers

    @property
    def asks_for(self) -> int:
        """How many new tokens the generation must be asked for: the last token of a response is read only where one
        more is to come, which is then dropped."""
        return self.steps + (self.scope == "response")

    def plane(self, layer: int) -> Keep:
        """The Keep of one site; it returns nothing, and nothing waits for the device."""

        def write(resid: Tensor, where: Where) -> None:
            step = self._forwards[layer] - (self.scope == "response")  # the first forward reads the prompt
            self._forwards[layer] += 1
            if resid.dtype != self.values.dtype:
                raise ValueError(f"site {where.site} is {resid.dtype}: expected {self.values.dtype}, as the model.")
            if 0 <= step < self.steps:
                self.values[layer, :, step] = resid[:, -1]

        return write

    def written(self, token_ids: Sequence[Sequence[int]], ended: Sequence[bool]) -> list[list[int]]:
        """The response of each row: at most `steps` tokens, without the one that ended it."""
        return [list(ids[:-1] if end else ids)[: self.steps] for ids, end in zip(token_ids, ended, strict=True)]

    def picked(self, prompts: Sequence[Encoded], answers: Sequence[Sequence[int]], reduce: str) -> Picked:
        """The steps that belong to the answers, on the CPU. Raises RuntimeError when one of them did not pass every
        layer."""
        first, offset = (0, 0) if self.scope == "response" else (1, -1)
        counts = torch.tensor([max(len(ids), first) for ids in answers])  # what chooses an empty answer: the prompt
        forwards = min(self._forwards) - (self.scope == "response")
        if int(counts.max()) > forwards:
            raise RuntimeError(
                f"an answer has {int(counts.max())} positions at {self.scope!r}, and {forwards} passed every layer: "
                "expected all of them. This model's generation leaves forwards out."
            )
        mask = torch.arange(self.steps) < counts[:, None]
        row, step = mask.nonzero(as_tuple=True)
        if reduce == "mean":
            row = mask.any(dim=1).nonzero().flatten()
            absent = torch.full_like(row, -1)
            return Picked(row, absent, absent, row, mask.float() / counts[:, None].clamp_min(1))
        length = torch.tensor([one.prompt_length for one in prompts])
        tokens = torch.zeros(len(prompts), self.steps + first, dtype=torch.long)
        for r, (one, ids) in enumerate(zip(prompts, answers, strict=True)):
            chosen = [*one.input_ids[one.prompt_length - first : one.prompt_length].tolist(), *ids]
            tokens[r, : len(chosen)] = torch.tensor(chosen, dtype=torch.long)
        return Picked(row, length[row] + step + offset, tokens[row, step], row * self.steps + step)

    def kept(self, picked: Picked) -> Float[Tensor, "layer n d_model"]:
        """The rows of the answers, on the device; a mean is float32."""
        on_device = picked.to(self.values.device)
        dtype = self.values.dtype if picked.weight is None else torch.float32
        layers, width = self.values.shape[0], self.values.shape[-1]
        out = torch.empty((layers, len(picked), width), dtype=dtype, device=self.values.device)
        if len(picked):
            for layer in range(layers):
                on_device.of(self.values[layer], out[layer])
        return out
