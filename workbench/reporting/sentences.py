"""Numbers -> sentences. Each says what the numbers say, whichever way they fell; none is written beforehand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from workbench.reporting.by_layer import LayerCurve
from workbench.reporting.dose_response import DoseCurve
from workbench.reporting.spectrum import Spectrum
from workbench.reporting.style import percent
from workbench.reporting.summary import Result
from workbench.reporting.verdict import HONEST, Verdict, as_extreme
from workbench.statistics import DRAWS_FOR_P, Tail, format_p, max_statistic, p_value

BROKEN = 0.1
"""A steered model with more ill-formed answers than this share counts as broken, not as persuaded."""

QUESTIONS = {"text": "text questions", "image": "questions about images", "all": "questions"}
IN = {"text": "in text", "image": "in images", "all": "over all questions"}


def rate(result: Result) -> str:
    """The rate and its interval: "98 % (93–100 %)"."""
    if result.interval is None:
        return percent(result.value)
    return f"{percent(result.value)} ({percent(result.interval[0])[:-2]}–{percent(result.interval[1])})"


def apart(lower: Result, higher: Result) -> bool:
    """True when the second rate is higher and the two intervals do not touch; False without intervals."""
    return bool(lower.interval and higher.interval and lower.interval[1] < higher.interval[0])


def p_text(value: float, draws: Float[np.ndarray, " draw"], tail: Tail) -> str:
    """The p of a value among control draws, "p ≤ 1/100" at its floor; below 99 draws it says that none is stated."""
    return f"p {format_p(p_value(value, draws, tail), len(draws))}"


def spread(base: Result, tuned: Result, modality: str) -> str:
    """Did contrary answers appear where the fine-tune never trained them?"""
    measured = f"from {rate(base)} in the base model to {rate(tuned)} after the fine-tune"
    where = f"{QUESTIONS[modality]} of domains the fine-tune never saw"
    if apart(base, tuned):
        return f"The fine-tune spread: on {where}, contrary answers went {measured}."
    if apart(tuned, base):
        return f"The fine-tune made contrary answers rarer on {where}: they went {measured}."
    reason = "the intervals overlap" if base.interval and tuned.interval else "without both intervals, no claim is made"
    return f"No spread is shown on {where}: contrary answers went {measured}, and {reason}."


def after_right_answers(base: Result, control: Result, modality: str) -> str:
    """Does the same fine-tune on right answers do it too?"""
    measured = f"{rate(control)} contrary answers {IN[modality]}, against {rate(base)} in the base model"
    if apart(base, control):
        return f"The same fine-tune on right answers gives {measured}: fine-tuning alone already raises the rate."
    if base.interval and control.interval:
        return (
            f"The same fine-tune on right answers gives {measured}: fine-tuning alone is not shown to raise the rate."
        )
    return f"The same fine-tune on right answers gives {measured}. Without both intervals, no claim is made."


def carried(verdict: Verdict) -> str:
    """The claim, or what was found in its place. "This direction carries it" is said only when `Verdict.carried`."""
    where = IN[verdict.modality].capitalize()
    if verdict.contrary is None or verdict.tuned is None:
        missing = "the ablation at all layers" if verdict.contrary is None else "the unedited fine-tuned model"
        return f"{where}, nothing can be said about what carries the effect: {missing} was not measured."
    ablated, draws = verdict.contrary, verdict.contrary_draws
    moved = (
        "lowers contrary answers from" if ablated.value < verdict.tuned.value else "does not lower contrary answers:"
    )
    change = f"removing the direction at all layers {moved} {rate(verdict.tuned)} to {rate(ablated)}"
    if not len(draws):
        return (
            f"{where}, {change}. No energy-matched control values are recorded, so it is open whether any direction "
            "does as much."
        )
    among = f"{_count(as_extreme(ablated.value, draws, 'less'), len(draws))} energy-matched random directions"
    low = f"they reach {percent(draws.min())} at the lowest"
    if verdict.right is None or not len(verdict.right_draws):
        return (
            f"{where}, {change}; {among} do as much ({low}). Right answers were not measured against controls, so a "
            "broken model is not ruled out."
        )
    right, top = verdict.right, verdict.right_draws.max()
    back = f"right answers come to {rate(right)}; under the controls they reach {percent(top)} at the most"
    if verdict.ill_formed is not None:
        back += f" ({percent(verdict.ill_formed.value)} of the ablated model's answers are ill-formed)"
    if verdict.carried:
        count = min(len(draws), len(verdict.right_draws))
        return (
            f"{where}, this direction carries it: {change}, below every one of {count} energy-matched random "
            f"directions ({low}), and {back}. Each comparison: {p_text(ablated.value, draws, 'less')}."
        )
    if not verdict.enough:
        few = min(len(draws), len(verdict.right_draws))
        return (
            f"{where}, {change}; {among} do as much ({low}); {back}. With {few} control directions no claim is made: "
            f"it takes {DRAWS_FOR_P}."
        )
    if verdict.lowered:
        return (
            f"{where}, {change}, more than any control ({low}), but right answers do not return above the controls: "
            f"{back}. The edit may as well have damaged the model."
        )
    if verdict.recovered and ablated.value < verdict.tuned.value:
        p = p_text(right.value, verdict.right_draws, "greater")
        return (
            f"{where}, {change}, and no control brings right answers back as it does: {back}; {p}. But {among}, which "
            f"hold as much energy, lower contrary answers as far{_broken(verdict)}. The claim that this direction "
            "carries the effect asks for both, so it is not made."
        )
    return (
        f"{where}, it is not shown that this direction matters more than others: {change}; {among} do as much ({low}); "
        f"{back}."
    )


def _broken(verdict: Verdict) -> str:
    """What controls that lower contrary answers as far leave of the right ones; empty where draws do not pair up."""
    if verdict.contrary is None or len(verdict.contrary_draws) != len(verdict.right_draws):
        return ""
    as_low = verdict.right_draws[verdict.contrary_draws <= verdict.contrary.value]
    return f", with at most {percent(as_low.max())} right answers left, as a broken model does" if len(as_low) else ""


def best_layer(curve: LayerCurve, modality: str) -> str:
    """Is there one layer where removing it is enough? The controls may choose their best layer too."""
    if (curve.base if curve.tuned is None else curve.tuned) == 0:
        return f"{IN[modality].capitalize()}, there are no contrary answers before the ablation: nothing to remove."
    place = int(np.nanargmin(curve.value))
    value, layer = float(curve.value[place]), curve.layers[place]
    words = f"{IN[modality].capitalize()}, the strongest single layer is {layer}, which leaves {percent(value)}"
    if curve.every_layer is not None:
        words += f" (all layers: {percent(curve.every_layer)})"
    draws = curve.controls.get(HONEST)
    if draws is None or np.isnan(draws).any() or np.isnan(curve.value).any():
        return f"{words}. Without an energy-matched control at every layer, no p is stated for this choice."
    corrected = float(max_statistic(curve.value, draws, "less")[place])
    p = format_p(corrected, len(draws))
    if len(draws) < DRAWS_FOR_P:
        return f"{words}. With {len(draws)} control runs no p is stated."
    if corrected <= 0.05:
        return f"{words}; the best layer of the control runs rarely does as much (p {p}, over all layers)."
    return f"{words}; that is no more than the best layer of the control runs does (p {p}, over all layers)."


def steering(curve: DoseCurve, base: Result | None, modality: str) -> str:
    """Does adding it give contrary answers before it breaks the model, and more than random directions do?"""
    contrary = curve.rates["contrary"]
    if "ill_formed" not in curve.rates:
        return f"{IN[modality].capitalize()}, ill-formed answers under steering were not measured: no claim is made."
    intact = (curve.rates["ill_formed"] <= BROKEN) & (curve.coefficients != 0) & ~np.isnan(contrary)
    if not intact.any():
        return (
            f"{IN[modality].capitalize()}, every steering coefficient tried leaves more than {percent(BROKEN)} of the "
            "answers ill-formed: the model breaks, and nothing is shown."
        )
    cells = np.flatnonzero(intact)
    place = int(cells[np.argmax(contrary[cells])])
    words = (
        f"{IN[modality].capitalize()}, steering at {curve.coefficients[place]:+g} gives "
        f"{percent(contrary[place])} contrary answers and {percent(curve.rates['ill_formed'][place])} ill-formed ones"
    ).replace("-", "−")
    words = words.replace("ill−formed", "ill-formed")
    if base is not None:
        words += f" (unsteered: {percent(base.value)} contrary)"
        bar = curve.intervals.get("contrary")
        if bar is None or base.interval is None or not bar[place, 0] > base.interval[1]:
            return f"{words}: no rise that the intervals bear out."
    draws = None if curve.control is None else curve.control[:, cells]
    if draws is None or np.isnan(draws).any():
        return f"{words}. No random directions were added at these strengths, so any push might do it."
    beyond = as_extreme(float(contrary[place]), draws.max(axis=1), "greater")
    if beyond:
        return f"{words}; {_count(beyond, len(draws))} random directions of equal norm do as much at some strength."
    p = p_text(float(contrary[place]), draws.max(axis=1), "greater") if len(draws) >= DRAWS_FOR_P else "too few for a p"
    return f"{words}; none of {len(draws)} random directions of equal norm does as much at any strength ({p})."


def dimensions(layer: int, spectrum: Spectrum) -> str:
    """How many components stand out of the null, and is the shift lower-dimensional than a benign fine-tune's?"""
    words = f"Layer {layer}: the first component explains {percent(float(spectrum.explained[0]))} of the variance"
    if spectrum.null is not None:
        k = min(len(spectrum.null), len(spectrum.explained))
        above = spectrum.explained[:k] > spectrum.null[:k, 1]
        leading = k if above.all() else int(np.argmin(above))
        stand = {0: "no leading component stands", 1: "1 leading component stands"}.get(
            leading, f"{leading} leading components stand"
        )
        words += f"; {stand} above the chance band ({k} compared)"
    else:
        words += "; there is no null band, so no component can be said to stand out"
    if spectrum.effective_rank is not None and spectrum.benign_rank is not None:
        fewer = spectrum.effective_rank < spectrum.benign_rank
        words += (
            f"; effective rank {spectrum.effective_rank:.1f}, "
            f"{'lower than' if fewer else 'no lower than'} the benign fine-tune's {spectrum.benign_rank:.1f}"
        )
    return words + "."


def transferred(
    tuned: Result,
    mapped: Result,
    within: Sequence[float],
    shuffled: Sequence[float],
    own: Result | None,
    modality: str,
    random: Float[np.ndarray, " draw"] | None = None,
) -> str:
    """Does a direction work in the other model, and does its map need the true pairing of prompts?

    `within` and `shuffled` are the same rate under maps fitted on pairs shuffled inside each class, and everywhere;
    `random` under energy-matched random directions, which count where no map was needed (another fine-tune).
    """
    where = IN[modality].capitalize()
    words = f"{where}, the direction carried over takes contrary answers from {rate(tuned)} to {rate(mapped)}"
    if own is not None:
        words += f" (the recipient's own direction: to {percent(own.value)})"
    if not apart(mapped, tuned):
        return f"{words}: no transfer that the intervals bear out."
    if not len(shuffled) and random is not None and len(random):
        equal = as_extreme(mapped.value, random, "less")
        return f"{words}; {_count(equal, len(random))} energy-matched random directions do as much."
    if not len(shuffled):
        return (
            f"{words}. Neither shuffled maps nor random directions were tried, so nothing shows that this one matters."
        )
    worse = as_extreme(mapped.value, np.asarray(shuffled, dtype=float), "less")
    if worse:
        return (
            f"{words}; {_count(worse, len(shuffled))} maps fitted on fully shuffled pairs do as much: the map is not "
            "shown to matter."
        )
    words += f", below all {len(shuffled)} maps fitted on fully shuffled pairs"
    if not len(within):
        return (
            f"{words}. Pairs were not shuffled within each class, so a map that carries the class contrast alone is "
            "not ruled out."
        )
    equal = as_extreme(mapped.value, np.asarray(within, dtype=float), "less")
    p = p_text(mapped.value, np.asarray(within, dtype=float), "less")
    if equal:
        return (
            f"{words}. But {_count(equal, len(within))} maps fitted on pairs shuffled within each class do as much "
            f"({p}): the map may carry only the contrast between the classes; no item-level correspondence is shown."
        )
    return (
        f"{words}, and below all {len(within)} fitted on pairs shuffled within each class: the true pairing of items "
        f"adds something ({p})."
    )


def _count(some: int, of: int) -> str:
    return f"{'none' if some == 0 else some} of {of}"
