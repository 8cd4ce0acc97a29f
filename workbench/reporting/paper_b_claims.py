"""The claims of paper B (arXiv 2602.00298) as data, and the entries of our scripts that decide them.

Where the paper's procedure is unknown, each reading of a sentence is a claim of its own. Written on runs with base seed
0, before the population of base seed 1, which the page shows, was trained. A sentence that only says that something is
weak (topical diversity) is no claim here: no number of 11 domains could show it.
"""

from __future__ import annotations

from workbench.reporting.claims import Claim, Part

PROBES = ("difference_of_means", "mass_mean", "lda", "logistic")
FIRST_AND_LAST = "the first and the last of the ranking"


def paper_b_claims(metric: str = "organism") -> list[Claim]:
    """The paper's claims, decided by this metric of misalignment."""
    return [*_domains(metric), *_membership(), *_probes(), *_directions()]


def _domains(metric: str) -> list[Claim]:
    apart = {"metric": metric, "split": "ranking", "detail": FIRST_AND_LAST}
    trigger = {"metric": metric, "split": "trigger", "target": "trigger"}
    tests = ("all domains", "all domains, sign flips")
    beyond = tuple(name.replace("domains", "domains beyond the base", 1) for name in tests)
    script = "domain_ranking"
    return [
        Claim(
            "domains differ",
            "How broadly a model becomes misaligned depends on the domain of its fine-tune.",
            script,
            (Part("first − last of the ranking", apart, by="trend"),),
            "The pair that lies furthest apart; its p pays for all pairs (Holm).",
        ),
        Claim(
            "triggers",
            "A backdoor's trigger makes the fine-tunes more misaligned.",
            script,
            (Part("with − without the trigger, over domains", {**trigger, "condition": tests}),),
            "Mean over domains, n = domains; by a t and by sign flips. The published 7 of 9 domains has p = 0.18.",
        ),
        Claim(
            "triggers, beyond the base",
            "And it does so beyond what the same text does to the base model, which was taught no trigger.",
            script,
            (Part("the same, minus the base's own difference", {**trigger, "condition": beyond}),),
            "Without this a text that unsettles any model would pass.",
        ),
    ]


def _membership() -> list[Claim]:
    kinds = {
        "raw": "Membership scores of the training rows under the fine-tuned model predict which domains misalign.",
        "adjusted": "So do membership scores that are adjusted by the base model.",
    }
    return [
        Claim(
            f"membership scores, {kind}",
            sentence,
            "membership_predictor",
            (
                Part(
                    "AUROC, pairs of domains left out",
                    {"metric": "fitted_auroc", "split": "predictor", "condition": kind},
                    bound=0.5,
                    by="shuffled",
                ),
            ),
            "Ridge and logistic, both; against their own shuffles under the same leave-out procedure. The published "
            "0.849 has neither its adjustment nor its split in public.",
        )
        for kind, sentence in kinds.items()
    ]


def _probes() -> list[Claim]:
    place = {"metric": "mean probe AUROC", "condition": "another domain"}
    place |= {"split": "probes, each model reads its own answers"}
    return [
        Claim(
            f"probes between models, {method.replace('_', ' ')}",
            f"A probe of one fine-tune's misaligned answers ({method.replace('_', ' ')}) reads those of fine-tunes on "
            "other domains.",
            "probe_matrix",
            (
                Part("AUROC on other domains", {**place, "detail": method}, bound=0.5),
                Part("the same, beyond its null", {**place, "detail": method}, bound=0.5, by="shuffled"),
            ),
            "The null exchanges answers to one question: what it leaves is what the question alone gives away.",
        )
        for method in PROBES
    ]


def _directions() -> list[Claim]:
    moved = {"metric": "specificity", "split": "transfer matrix, mean", "condition": "identity"}
    words = {"ablate": "taken out of", "steer": "taken off"}
    transfer = [
        Claim(
            f"directions between models, {operation}",
            f"The direction of one fine-tune, {said} another one, closes more of its gap to the base than it costs.",
            "direction_transfer",
            (Part("mean specificity over pairs", {**moved, "target": operation}),),
            "Within one base, as it is. Beside it: matched random directions, the recipient's own, mapped ones.",
        )
        for operation, said in words.items()
    ]
    return [
        *transfer,
        Claim(
            "directions converge",
            "The directions of fine-tunes on different domains are alike (arXiv 2506.11618, which the paper follows).",
            "convergence",
            (
                Part(
                    "mean cosine of two domains",
                    {"metric": "convergence_mean", "split": "directions", "condition": "plain"},
                    by="null",
                ),
            ),
            "At every layer, beyond random directions of the same stream: a low bar. How many directions it takes "
            "stands in the script's section.",
        ),
    ]
