"""capture_places: one set of prompts at every place where a shift is looked for, in stores of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from hooks.backends.hf import HuggingFaceModel
from hooks.prompt import Prompt, as_prompts
from hooks.site import Site
from stores import ActivationStore, NoRows, Rows
from workbench.capturing import capture

LAST, OWN, TEXT, IMAGE, TOWER = PLACES = (
    "last token", "own answers", "text positions", "image positions", "vision tower"
)  # fmt: skip


def capture_places(
    model: HuggingFaceModel,
    prompts: str | Path | Iterable[Prompt],
    variants: Sequence[str],
    *,
    layers: Sequence[int] | None = None,
    vision_layers: Sequence[int] | None = None,
    max_new_tokens: int = 64,
    to: str | Path,
    progress: bool = True,
) -> dict[str, Rows]:
    """Rows of every variant by place: `last token`; `own answers` (each variant's response tokens, greedy, at most
    `max_new_tokens`); and of the prompts with pictures `text positions` and `image positions` of the language model and
    the `vision tower`, one row a prompt (an image), the mean of its span: positions of a span are no independent rows.

    `resid_post` of `layers` and `vision_layers` (default: all). The four places are kept apart, and only the first four
    are rows of one space. Places that the prompts or the model lack are left out: those of pictures, and the answers
    where fewer than two prompts got one of every variant (a model may end its turn at once).
    Resumes in the folders of `to`.
    """
    listed, folder = as_prompts(prompts), Path(to)
    pictured = [prompt for prompt in listed if prompt.images]
    language = [Site(layer) for layer in layers or range(model.n_layers)]
    depth = model.depths.get("vision", 0)
    tower = [Site(layer, tower="vision") for layer in vision_layers or range(depth)] if depth else []
    common = {"variants": variants, "progress": progress}
    out = {LAST: capture(model, listed, sites=language, at="last", to=folder / "last", **common).rows()}
    written = {"responses": "generate", "max_new_tokens": max_new_tokens}
    own = capture(model, listed, sites=language, at="response", to=folder / "own", **written, **common)
    if _answered(own, variants):
        out[OWN] = own.rows()
    if not pictured or not depth:
        return out
    common["pool"] = "mean"
    out[TEXT] = capture(model, pictured, sites=language, at="text", to=folder / "text", **common).rows()
    scopes = {"language": "image", "vision": "image"}
    image = capture(model, pictured, sites=[*language, *tower], at=scopes, to=folder / "image", **common)
    return out | {IMAGE: image.at("resid_post"), TOWER: image.at("vision.resid_post")}


def _answered(store: ActivationStore, variants: Sequence[str]) -> bool:
    """Whether two prompts or more have an answer of every variant: an end of turn alone has no position."""
    try:
        given = [set(store.where(variant=variant).prompt_ids) for variant in variants]
    except NoRows:
        return False
    return len(set.intersection(*given)) > 1
