"""judge: the judge of a name. `rule:NAME` reads the text alone, `hf:PATH` asks a local model, `openai:MODEL` an
endpoint."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from workbench.behaviour.coherence_judge import CoherenceJudge
from workbench.behaviour.judging import Judge
from workbench.behaviour.keyword_judge import KeywordJudge
from workbench.behaviour.refusal_judge import RefusalJudge
from workbench.behaviour.rule_judges import ContainsJudge, RuleJudge

RULES: dict[str, type[Any]] = {
    "rule:organism": RuleJudge,
    "rule:contains": ContainsJudge,
    "rule:refusal": RefusalJudge,
    "rule:keyword": KeywordJudge,
    "rule:coherence": CoherenceJudge,
}
_KEYWORDS = "rule:keyword:"  # what follows are its words, so that a command line can name them
_FIXED = {"self", "name", "categories", "model"}  # no options: the name decides them


def judge(name: str | Any, **options: Any) -> Judge:
    """The judge of that name, with its own options.

    `"rule:NAME"`: a rule (`"rule:keyword:WORD,WORD"`: with these words). `"hf:PATH"`: a checkpoint folder or hub name
    by its probabilities of the numbers 0 to 100 (options `rubric`, `least_mass`, `max_tokens`, `adapter`, `dtype`,
    `device`, ...: see LocalJudge); a model from `wb.load_model` in place of the name is the same. `"openai:MODEL"`: a
    model behind an OpenAI-compatible server (options `rubric`, `how`, `base_url`, ...: see EndpointJudge). `rubric` is
    a shipped one's name, a YAML file or a Rubric. ValueError lists the names, or the options, that exist.
    """
    if not isinstance(name, str):
        if not (hasattr(name, "encode") and hasattr(name, "identity")):
            raise ValueError(f"a judge is {type(name).__name__}: expected a name, or a model from wb.load_model.")
        return _local(name, f"the loaded model {name.name!r}", options)
    kind, _, rest = name.partition(":")
    if kind == "hf" and rest:
        return _local(rest, name, options)
    if kind == "openai" and rest:
        from workbench.behaviour.endpoint import Endpoint
        from workbench.behaviour.endpoint_judge import EndpointJudge

        _refuse_unknown(name, options, EndpointJudge, Endpoint)
        return EndpointJudge(rest, **options)
    if name.startswith(_KEYWORDS):
        name, options = _KEYWORDS.rstrip(":"), {"words": name.removeprefix(_KEYWORDS).split(","), **options}
    if name not in RULES:
        known = ", ".join(map(repr, RULES))
        raise ValueError(f"Judge {name!r} is unknown: expected one of {known}, 'hf:PATH' or 'openai:MODEL'.")
    _refuse_unknown(name, options, RULES[name])
    return RULES[name](**options)


def judges(name: str, rubrics: Iterable[str] = (), companions: Iterable[str] = ()) -> list[Judge]:
    """The judge of that name, once for each rubric (as it is where there are none), and `companions`, which are judges
    too, for the quantities that these do not measure."""
    main = [judge(name, rubric=rubric) for rubric in rubrics] or [judge(name)]
    measured = {one.measures for one in main}
    return main + [one for one in map(judge, companions) if one.measures not in measured]


def _local(model: Any, name: str, options: Mapping[str, Any]) -> Judge:
    from workbench.behaviour.local_judge import local_judge

    _refuse_unknown(name, options, local_judge)
    return local_judge(model, **options)


def _refuse_unknown(name: str, options: Mapping[str, Any], *makers: Callable[..., Any]) -> None:
    known = {
        parameter.name
        for maker in makers
        for parameter in inspect.signature(maker).parameters.values()
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    } - _FIXED
    if unknown := sorted(set(options) - known):
        raise ValueError(
            f"judge {name!r} has no option {unknown[0]!r}: expected {', '.join(sorted(known)) or 'none'} "
            "(what a rubric leaves open goes into options={...})."
        )
