"""ModelSource: where a model comes from, as data, so that whoever is to run it loads it itself."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hooks.backends.hf import HuggingFaceModel
from hooks.load import load_model
from hooks.prompt import Prompt, as_prompts
from stores.printed import Printed


@dataclass(frozen=True)
class ModelSource(Printed):
    """What `wb.load_model` is asked for: `ModelSource(folder, adapter=lora)`; `variant` is the one that acts, and
    `options` its other arguments, `{"dtype": "bfloat16"}`. A worker loads it once and keeps it."""

    name: str | Path
    adapter: str | Path | Mapping[str, str | Path] | None = None
    variant: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = list(inspect.signature(load_model).parameters)[1:]
        if unknown := sorted(set(self.options) - (set(known) - {"adapter", "tokenizer", "processor"})):
            raise ValueError(f"ModelSource has no option {unknown[0]!r}: expected among {', '.join(known)}.")

    @classmethod
    def of(cls, model: ModelSource | str | Path) -> ModelSource:
        return model if isinstance(model, ModelSource) else cls(model)

    def load(self) -> HuggingFaceModel:
        """The model, in this process."""
        model = load_model(self.name, adapter=self.adapter, **self.options)
        return model if self.variant is None else model.variant(self.variant)

    def anywhere(self) -> ModelSource:
        """The same, with folders by their whole path: a worker stands in another folder."""
        if isinstance(self.adapter, Mapping):
            adapter: Any = {name: _whole(folder) for name, folder in self.adapter.items()}
        else:
            adapter = None if self.adapter is None else _whole(self.adapter)
        return replace(self, name=_whole(self.name), adapter=adapter)


def loaded(model: HuggingFaceModel | ModelSource | str | Path) -> HuggingFaceModel:
    """The model itself: what is given, or what its source gives."""
    return ModelSource.of(model).load() if isinstance(model, ModelSource | str | Path) else model


def sent(model: HuggingFaceModel | ModelSource | str | Path) -> ModelSource:
    """What other processes load. Raises ValueError for a model that is here already: weights are not sent round."""
    if isinstance(model, ModelSource | str | Path):
        return ModelSource.of(model).anywhere()
    raise ValueError(
        f"engine='ray' has every worker load the model itself, and {type(model).__name__} is an object in this "
        "process: expected its folder or hub name, or wb.ModelSource(folder, adapter=folder, variant='tuned')."
    )


def data_of(prompts: str | Path | Iterable[Prompt]) -> str | list[Prompt]:
    """Prompts for other processes: a file by its whole path, prompts with those of their pictures."""
    if isinstance(prompts, str | Path):
        return str(Path(prompts).absolute())
    return [_with_whole_paths(prompt) for prompt in as_prompts(prompts)]


def _with_whole_paths(prompt: Prompt) -> Prompt:
    if all(path.is_absolute() for path in prompt.images):
        return prompt
    messages = tuple(
        replace(message, parts=tuple(part if isinstance(part, str) else part.absolute() for part in message.parts))
        for message in prompt.messages
    )
    return replace(prompt, messages=messages, pictures=tuple(path.absolute() for path in prompt.pictures))


def _whole(name: str | Path) -> str:
    """A folder's whole path; a hub's name as it is."""
    return str(Path(name).absolute()) if Path(name).is_dir() else str(name)
