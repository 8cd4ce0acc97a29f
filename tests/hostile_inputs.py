"""The corpus of hostile inputs that are no stores, and the public loaders that meet them: the second half of
`hostile_files.py`, in the same form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import hostile_moments as stored_moments
import hostile_pictures as pictures
import hostile_rows as rows
import hostile_summaries as summaries
import hostile_weights as weights
from hostile_files import Hostile, Loader

import workbench as wb
from hooks.pictures import pictures_of
from hooks.prompt import Message, Prompt, PromptError, read_prompts
from stores import StoreError
from workbench.behaviour.endpoint_messages import data_url
from workbench.behaviour.endpoint_reply import CannotAsk
from workbench.behaviour.plain_images import plain_image
from workbench.behaviour.yaml_files import YamlError, read_yaml
from workbench.organisms import _answer_table
from workbench.reporting.summary import read_summary
from workbench.subspace.array_files import npz_arrays
from workbench.subspace.streamed_file import load_moments
from workbench.training.manifest import changed
from workbench.training.row_checks import read_rows
from workbench.training.tables import read_table

Making = Callable[[Path], Path]


def _files() -> Iterator[Hostile]:
    for make, says in {**pictures.PICTURES, **pictures.PLACES}.items():
        kind = "place" if make in pictures.PLACES else "picture"
        yield Hostile(f"picture: {make.__name__}", kind, make, says)
    of: dict[str, Mapping[str, tuple[Making, str]]] = {
        "prompts": rows.PROMPTS,
        "table": rows.TABLES,
        "yaml": rows.YAMLS,
        "adapter": {name: (weights._of(weights.adapter, one), say) for name, (one, say) in weights.ADAPTERS.items()},
        "checkpoint": {
            name: (weights._of(weights.checkpoint, one), say) for name, (one, say) in weights.CHECKPOINTS.items()
        },
        "tensor": weights.TENSORS,
        "directions": weights.DIRECTIONS,
        "arrays": weights.ARRAYS,
        "summary": summaries.SUMMARIES,
        "answers": summaries.ANSWERS,
        "manifest": summaries.MANIFESTS,
        "moments": stored_moments.MOMENTS,
    }
    for kind, files in of.items():
        for name, (make, says) in files.items():
            yield Hostile(f"{kind}: {name}", kind, make, says)


HOSTILE = list(_files())


def _shown(path: Path) -> Any:
    return pictures_of(Prompt("a", (Message("user", (path,)),)))


def _checked(path: Path) -> None:
    """What `wb.check_data` says of the rows, as an error."""
    _, findings = read_rows(path)
    if findings:
        raise PromptError("; ".join(map(str, findings)))


def _imported(path: Path) -> Any:
    return wb.load_directions(path, convention="resid_post")


def _tuned(path: Path) -> Any:
    module, tokenizer = weights.sound_model()
    return wb.load_model(module, tokenizer, adapter=path, check=False)


def _loader(name: str, kinds: str, load: Callable[[Path], object], *errors: type[Exception]) -> Loader:
    return Loader(name, frozenset(kinds.split()), load, errors or (ValueError, FileNotFoundError))


# What every loader of a kind accepts.
SOUND: dict[str, Making] = {
    "picture": pictures.picture,
    "place": pictures.picture,
    "prompts": rows.prompts,
    "table": rows.table,
    "yaml": rows.questions,
    "adapter": weights.adapter,
    "checkpoint": weights.checkpoint,
    "tensor": weights.tensor,
    "directions": weights.directions,
    "arrays": weights.arrays,
    "summary": summaries.summary,
    "answers": summaries.answers,
    "manifest": summaries.manifest,
    "moments": stored_moments.moments,
}
LOADERS = [
    _loader("pictures_of", "picture place", _shown, PromptError),
    _loader("plain_image", "picture place", lambda path: plain_image(path, path.parent / "to"), PromptError),
    _loader("data_url", "place", data_url, CannotAsk),
    _loader("read_prompts", "prompts", read_prompts, PromptError),
    _loader("check_data", "prompts", _checked, PromptError),
    _loader("read_table", "table", read_table, PromptError),
    _loader("read_yaml", "yaml", read_yaml, YamlError, FileNotFoundError),
    _loader("read_questions", "yaml", wb.read_questions, YamlError, FileNotFoundError, PromptError),
    _loader("load_model(adapter=)", "adapter", _tuned),
    _loader("lora_factors", "adapter", wb.lora_factors),
    _loader("scaled_adapter", "adapter", lambda path: wb.scaled_adapter(path, 0.5, to=path.parent / "half")),
    _loader("load_model", "checkpoint", partial(wb.load_model, check=False), FileNotFoundError, ValueError),
    _loader("imported directions", "tensor", _imported, FileNotFoundError, ValueError),
    _loader("load_directions", "directions", wb.load_directions, ValueError),
    _loader("npz_arrays", "arrays", npz_arrays),
    _loader("read_summary", "summary", read_summary, FileNotFoundError, ValueError),
    _loader("organism(answers=)", "answers", _answer_table, ValueError),
    _loader("changed", "manifest", changed, ValueError),
    _loader("load_moments", "moments", load_moments, StoreError),
]
