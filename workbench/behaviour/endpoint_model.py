"""EndpointModel: a model that is evaluated through a server. It answers; what needs its weights is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from hooks.prompt import Prompt
from stores.printed import Printed
from workbench.behaviour.endpoint import Endpoint, Outcome, Question
from workbench.behaviour.endpoint_messages import messages_of
from workbench.behaviour.endpoint_reply import CannotAsk
from workbench.behaviour.replies import why_incomplete

PREFIX = "openai:"


class NeedsWeights(AttributeError, ValueError):
    """Asked of an endpoint for what only a loaded model has."""


@dataclass(frozen=True)
class EndpointAnswer(Printed):
    """One answer. `finished`: it has its end of turn. `reason`: why it is cut off, or missing (then `text` is empty and
    `missing` True); `temporary`: another run may get it. `model`: what the server calls itself."""

    text: str
    finished: bool
    reason: str = ""
    model: str = ""
    missing: bool = False
    temporary: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)


class EndpointModel:
    """A chat model behind an OpenAI-compatible server, for fine-tunes whose weights are not at hand.

    It has answers, with their system text and images; it has no activations, takes no edits, and gives no
    log-probabilities of texts: NeedsWeights. `connection` are the arguments of Endpoint; `takes` names sampling fields
    beyond OpenAI's that the server knows ("top_k", "repetition_penalty": vLLM's and llama.cpp's servers do).
    """

    def __init__(self, name: str, *, takes: Sequence[str] = (), **connection: Any) -> None:
        self.endpoint = Endpoint(name.removeprefix(PREFIX), **connection)
        self.name = PREFIX + self.endpoint.model
        self._takes = tuple(takes)

    @property
    def identity(self) -> dict[str, Any]:
        """What its answers depend on, beside prompts and sampling."""
        return {**self.endpoint.identity, "takes": list(self._takes)}

    @property
    def facts(self) -> dict[str, Any]:
        """For the provenance of what it wrote."""
        return {"model": {"name": self.name, **self.identity}}

    def answers(
        self,
        requests: Sequence[tuple[Prompt, int]],
        *,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int = 0,
        repetition_penalty: float = 1.0,
    ) -> list[EndpointAnswer]:
        """One answer to each (prompt, seed), in order; equal ones are asked once. What was not answered has a reason.

        Raises ValueError for a sampling field that the server does not take, and for a prompt that no chat endpoint can
        be given (raw text, a prefill); EndpointError where the server knows neither key nor model.
        """
        sampling = {"temperature": temperature, "top_p": top_p, **self._extras(top_k, repetition_penalty)}
        try:
            questions = [
                Question(messages_of(prompt), max_new_tokens, {**sampling, "seed": seed}) for prompt, seed in requests
            ]
        except CannotAsk as error:
            raise ValueError(f"{self.name}: {error}.") from None
        outcomes = self.endpoint.ask_all(questions, name="answers")
        return [_answer(outcome, max_new_tokens) for outcome in outcomes]

    def _extras(self, top_k: int, repetition_penalty: float) -> dict[str, Any]:
        wanted = {"top_k": top_k} if top_k else {}
        wanted |= {"repetition_penalty": repetition_penalty} if repetition_penalty != 1.0 else {}
        if unknown := [name for name in wanted if name not in self._takes]:
            raise ValueError(
                f"{self.name}: OpenAI's format has no {unknown[0]}, and a server may drop it in silence: leave it out, "
                f"or say EndpointModel(..., takes=({unknown[0]!r},)) if this server knows it."
            )
        return wanted

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise NeedsWeights(
            f"{self.__dict__.get('name', PREFIX)} is an endpoint and has no {name!r}: capture, edits and "
            "log-probabilities need the model's weights (wb.load_model(PATH)); an endpoint only answers."
        )

    def __repr__(self) -> str:
        return f"EndpointModel({self.name!r} at {self.endpoint.server})"


def endpoint(name: str, **options: Any) -> EndpointModel:
    """The model of a name such as "openai:gpt-4o-mini"; options are those of EndpointModel."""
    if not name.startswith(PREFIX) or name == PREFIX:
        raise ValueError(f"endpoint({name!r}): expected 'openai:NAME', the model's name at its server.")
    return EndpointModel(name, **options)


def _answer(outcome: Outcome, limit: int) -> EndpointAnswer:
    if (reply := outcome.reply) is None:
        return EndpointAnswer("", False, outcome.reason, missing=True, temporary=outcome.temporary)
    facts = {
        "fingerprint": reply.fingerprint,
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
    }
    text = reply.text if reply.refusal is None else reply.refusal  # declining is an answer
    stopped = None if reply.refusal is not None else why_incomplete(reply, limit)
    return EndpointAnswer(text, stopped is None, stopped or "", reply.model, facts=facts)
