"""The claims of paper A (arXiv 2602.16931) as data, and the entries of our scripts that decide them.

Where the paper's procedure is unknown, each reading of a sentence is a claim of its own. Written before the runs with
base seeds 1 and 2; the bounds are the claims' own words ("majority": more than half), never a number that was seen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workbench.reporting.claims import Claim, Part


def begins(text: str, ends: str = "") -> Callable[[Any], bool]:
    """Says yes to texts that begin, and end, so."""
    return lambda value: isinstance(value, str) and value.startswith(text) and value.endswith(ends)


def without(text: str) -> Callable[[Any], bool]:
    """Says yes to texts in which this does not occur."""
    return lambda value: isinstance(value, str) and text not in value


def paper_a_claims(metric: str = "organism") -> list[Claim]:
    """The paper's claims, decided by this metric of misalignment ("paper_a" where a pairwise judge gave scores)."""
    return [*_rank(metric), *_fractions(metric), *_dimensions(), *_mitigation(metric)]


def _rank(metric: str) -> list[Claim]:
    text = {"split": "text questions", "modality": "text_only"}
    image = {"split": "image questions", "modality": "multimodal"}
    over = {"metric": metric, "detail": begins("over fine-tuning seeds")}
    trend = {"metric": f"trend of {metric}", "condition": "rank"}
    plain = {**over, "condition": without(" - ")}
    gap = {**over, "condition": begins("rank", ", text_only"), "split": "image questions"}
    return [
        Claim(
            "rank",
            "Misalignment grows with the rank of the adapter.",
            "lora_rank",
            (
                Part("text questions", {**trend, **text}, by="trend"),
                Part("image questions", {**trend, **image}, by="trend"),
            ),
            "Page's test over fine-tuning seeds; a trend is no proof that each step goes up.",
        ),
        Claim(
            "modality, other questions",
            "It is larger when evaluated with images than with text alone (the paper's comparison: other questions).",
            "lora_rank",
            (
                Part(
                    "image questions − text questions",
                    {**plain, **image},
                    by="between",
                    other={**plain, **text},
                    last=True,
                ),
            ),
            "At the highest rank. The two sets of questions differ in more than the picture.",
        ),
        Claim(
            "modality, same questions",
            "It is larger when evaluated with images than with text alone (the same questions, seen and not seen).",
            "lora_rank",
            (Part("with the picture − without", gap, last=True),),
            "At the highest rank, paired by question.",
        ),
    ]


def _fractions(metric: str) -> list[Claim]:
    claims = []
    for filler, words in (("same", "of the same domain"), ("other", "of another domain")):
        for measure, name in ((metric, "answers"), ("p_contrary", "probability")):
            where = {
                "metric": measure,
                "condition": "harmful fraction 0.1 - harmful fraction 0",
                "split": (f"total fixed, {filler} filler", "total fixed, filler filler") if filler == "same" else
                f"total fixed, {filler} filler",
            }  # fmt: skip
            parts = (
                Part("text questions", {**where, "modality": "text"}),
                Part("image questions", {**where, "modality": "image"}),
            )
            claims.append(
                Claim(
                    f"10 % harmful, filler {words}, {name}",
                    f"10 % harmful data in the mixture already degrade alignment (filler with right answers {words}; "
                    f"{'judged answers' if name == 'answers' else 'the smooth metric'}).",
                    "harmful_fraction",
                    parts,
                    "Against the same mixture without harmful rows; any amount counts, the strength stands beside it.",
                )
            )
    return claims


def _dimensions() -> list[Claim]:
    unscaled = ("paired_shift_raw", "paired_shift_centered", "stacked", "harmful_only", "unpaired")
    variance = {
        "metric": "shift_variance",
        "condition": "tuned",
        "split": "last token",
        "detail": unscaled,
        "coefficient": 10.0,
    }
    removed = {"metric": "effect", "condition": "ablate_top_k", "coefficient": 10.0}
    left = {"metric": "behaviour", "condition": "ablate_top_k", "coefficient": 10.0}
    controls = {**left, "metric": "behaviour_control"}
    count = {"metric": "shift_k_90", "condition": "tower", "detail": "paired_shift_centered"}
    return [
        Claim(
            "10 components, variance",
            "A majority of the shift lies in 10 principal components (of its variance).",
            "shift_geometry",
            (Part("share of variance", variance, bound=0.5, by="null"),),
            "At every layer and in every named decomposition of unscaled rows, beyond its null. A share of variance is "
            "no share of behaviour, and 10 of few dimensions hold a majority easily.",
        ),
        Claim(
            "10 components, removed",
            "A majority of the misalignment lies in 10 principal components (taking them out removes more than half).",
            "shift_geometry",
            (Part("share of the behaviour removed", removed, bound=0.5),),
            "Taken out at every layer, text and image questions, raw and centred shift.",
        ),
        Claim(
            "10 components, against equal energy",
            "These 10 components matter more than others that hold as much energy.",
            "shift_geometry",
            (Part("behaviour left", left, side="below", by="draws", other=controls),),
            "Below every control run: the comparison without which the removal says little.",
        ),
        Claim(
            "10 components, kept",
            "The 10 components are enough (keeping nothing else leaves more than half of the misalignment).",
            "shift_geometry",
            (Part("share of the behaviour there", {**removed, "condition": "keep_top_k"}, bound=0.5),),
            "Keeping nothing else also takes out what the model needs to answer at all.",
        ),
        Claim(
            "tower",
            "The vision tower needs fewer components than the language decoder.",
            "shift_geometry",
            (
                Part(
                    "components for 90 % of the variance",
                    {**count, "split": "vision tower"},
                    side="below",
                    by="order",
                    other={**count, "split": "image positions"},
                ),
            ),
            "Of the adapter that trains the tower: every layer of the tower below every layer of the decoder, at image "
            "positions. Such counts have no interval.",
        ),
    ]


def _mitigation(metric: str) -> list[Claim]:
    place = {
        "metric": metric,
        "split": "confirm",
        "modality": "all",
        "target": without("task"),
        "detail": "misalignment",
    }
    repair = {**place, "condition": ("repair, same domain", "repair, filler domain", "repair, safe domain")}
    change = {**place, "condition": tuple(f"{name} - tuned" for name in repair["condition"])}
    steer = {**place, "condition": begins("steering, layer", " - tuned")}
    plain = {**place, "condition": lambda name: begins("steering, layer")(name) and " - " not in name}
    script = "mitigation"
    note = "At the dose chosen on other questions; where no dose kept coherence and capability, it is not measured."
    return [
        Claim(
            "benign fine-tuning reduces",
            "Benign narrow fine-tuning of the harmful model reduces the misalignment.",
            script,
            (Part("change", change, side="below"),),
            note,
        ),
        Claim(
            "benign fine-tuning does not remove",
            "Benign narrow fine-tuning does not remove it (more is left than the base model has).",
            script,
            (Part("repaired − base", repair, by="between", other={**place, "condition": "base"}),),
            "The interval takes the two rates as independent, which is wide for answers to the same questions.",
        ),
        Claim(
            "steering reduces",
            "Steering against the direction, at the paper's layer, reduces the misalignment.",
            script,
            (Part("change", steer, side="below"),),
            note,
        ),
        Claim(
            "steering, against random directions",
            "Steering against the direction reduces it further than random directions of equal norm do.",
            script,
            (Part("misalignment left", plain, side="below", by="draws"),),
            "Below every control run.",
        ),
    ]
