"""The protocols that every back end and every intervention keeps: TracedModel, Edit, Keep; and what a run returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from hooks.encode import Batch
from hooks.positions import Scope, Tokens
from hooks.prompt import Prompt
from hooks.site import Site


@dataclass
class Tally:
    """What one edit did to each row over a run: positions edited, energy removed, and what is left of its directions.

    `removed` is Σ‖h' − h‖² and `energy` Σ‖h − centre‖² over the edited positions; `leftover` is the largest
    |component that should be gone| / ‖h'‖. They stay zero where the edit does not measure them.
    """

    edited: Int[Tensor, " row"]
    removed: Float[Tensor, " row"]
    energy: Float[Tensor, " row"]
    leftover: Float[Tensor, " row"]

    @staticmethod
    def empty(rows: int) -> Tally:
        zeros = torch.zeros(rows, dtype=torch.float64)
        return Tally(torch.zeros(rows, dtype=torch.long), zeros, zeros.clone(), zeros.clone())

    def add(
        self,
        edited: Tensor,
        removed: Tensor | None = None,
        energy: Tensor | None = None,
        leftover: Tensor | None = None,
    ) -> None:
        """Counts on the device of what comes: nothing waits for the device until `settle`."""
        if self.edited.device != edited.device:
            self.on(edited.device)
        self.edited += edited  # in place: a CUDA graph counts into the same memory every time
        if removed is not None and energy is not None:
            self.removed += removed
            self.energy += energy
        if leftover is not None:
            torch.maximum(self.leftover, leftover.to(self.leftover.dtype), out=self.leftover)

    def on(self, device: torch.device) -> list[Tensor]:
        """The counts, on this device from now on."""
        if self.edited.device != device:
            self.edited = self.edited.to(device)
            for name in ("removed", "energy", "leftover"):
                setattr(self, name, getattr(self, name).to(device, _counter(device)))
        return [self.edited, self.removed, self.energy, self.leftover]

    def settle(self) -> None:
        """Brings the counts to the CPU, once a run."""
        self.edited = self.edited.cpu()
        for name in ("removed", "energy", "leftover"):
            setattr(self, name, getattr(self, name).cpu().double())

    def widened(self, rows: int) -> Tally:
        """The counts of the first rows, as counts of all: the others were not touched."""
        more = rows - len(self.edited)
        return self if not more else Tally(*(pad(part, (0, more)) for part in vars(self).values()))

    def by_prompt(self, owner: Sequence[int], rows: int) -> Tally:
        """The counts of a vision tower, whose rows are images, as one row a prompt (which has several images or
        none)."""
        out, index = Tally.empty(rows), torch.tensor(owner, dtype=torch.long)
        out.edited.index_add_(0, index, self.edited)
        out.removed.index_add_(0, index, self.removed)
        out.energy.index_add_(0, index, self.energy)
        out.leftover.scatter_reduce_(0, index, self.leftover, "amax")
        return out


def _counter(device: torch.device) -> torch.dtype:
    """The widest float that a device counts in: Apple's has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


@dataclass(frozen=True)
class Where:
    """Where a residual stands: the site, the tokens of this forward, and the tally of the edit that is asking."""

    site: Site
    tokens: Tokens
    tally: Tally | None = None

    def mask(self, scope: Scope) -> Bool[Tensor, "row pos"]:
        return self.tokens.mask(scope)


@runtime_checkable
class Edit(Protocol):
    """Changes the residual inside the forward, and adds what it edited to `where.tally`; it returns a new tensor."""

    def __call__(self, resid: Float[Tensor, "row pos d_model"], where: Where) -> Float[Tensor, "row pos d_model"]: ...


@runtime_checkable
class Keep(Protocol):
    """Selects, pools or accumulates the residual on its own device; None keeps nothing."""

    def __call__(self, resid: Float[Tensor, "row pos d_model"], where: Where) -> Tensor | None: ...


Edits = Mapping[Site, Sequence[Edit]]
Keeps = Mapping[Site, Keep]


@dataclass(frozen=True)
class Trace:
    """What one forward gave. `kept[site]` is what the site's Keep returned, after the edits of that site (what the next
    block saw); `logits` are those that choose each row's next token, None when they were not asked for."""

    kept: dict[Site, Tensor]
    logits: Float[Tensor, "row vocab"] | None
    tallies: dict[Site, list[Tally]] = field(default_factory=dict)

    def __repr__(self) -> str:
        kept = ", ".join(f"{site} {list(values.shape)}" for site, values in self.kept.items())
        logits = "no logits" if self.logits is None else f"logits {list(self.logits.shape)}"
        return f"Trace({kept or 'nothing kept'}; {logits}; edits at {len(self.tallies)} sites)"

    def untouched(self) -> list[int]:
        """The rows that no edit touched."""
        return untouched_rows(self.tallies)


@dataclass(frozen=True)
class Generation:
    """What `generate` gave, one entry a row. `finished` is False where the token limit cut the text off."""

    texts: list[str]
    token_ids: list[list[int]]
    finished: list[bool]
    kept: dict[Site, list[Tensor]] = field(default_factory=dict)  # one entry a forward: the prompt's, then one a token
    tallies: dict[Site, list[Tally]] = field(default_factory=dict)
    decoding: str = "dynamic"  # the loop that wrote it (`generate(decode=)`); "dynamic: ..." says why not the other

    def __repr__(self) -> str:
        first = f", first {self.texts[0][:60]!r}" if self.texts else ""
        tokens = sum(map(len, self.token_ids))
        return (
            f"Generation({len(self.texts)} answers, {tokens} tokens, {self.finished.count(False)} cut off{first}; "
            f"kept at {len(self.kept)} sites, edits at {len(self.tallies)}; {self.decoding})"
        )

    def untouched(self) -> list[int]:
        """The rows that no edit touched."""
        return untouched_rows(self.tallies)


class NothingEdited(RuntimeError):
    """Edits were given, but touched no position of any row: the numbers would be those of the unedited model."""


def untouched_rows(tallies: Mapping[Site, Sequence[Tally]]) -> list[int]:
    """The rows that no edit of any site touched; empty when there were no edits."""
    counts = [tally.edited for at_site in tallies.values() for tally in at_site]
    return [] if not counts else torch.nonzero(torch.stack(counts).sum(dim=0) == 0).flatten().tolist()


@runtime_checkable
class TracedModel(Protocol):
    """A model whose residual stream can be read and edited; all back ends behave alike (`tests/contract.py`)."""

    name: str
    n_layers: int
    d_model: int
    pads: dict[str, bool]

    def injected_layers(self) -> tuple[int, ...]: ...

    def encode(self, prompts: Sequence[Prompt]) -> Batch: ...

    def run(
        self,
        batch: Batch,
        keep: Keeps | None = None,
        edits: Edits | None = None,
        *,
        logits: bool = True,
        must_edit: bool = True,
    ) -> Trace: ...

    def generate(
        self,
        batch: Batch,
        keep: Keeps | None = None,
        edits: Edits | None = None,
        *,
        must_edit: bool = True,
        **sampling: Any,
    ) -> Generation: ...
