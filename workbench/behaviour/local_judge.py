"""LocalJudge: a Hugging Face model as judge, by the probability that it gives to every number of the scale."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from hooks.branches import beginning_of, branch_logits, may_share, read, way_of, why_not_shared
from hooks.encoded import Encoded
from hooks.load import load_model
from hooks.prefix_cache import Prefix
from hooks.prompt import Message, Prompt
from hooks.recording import CannotReplay
from workbench.behaviour.judging import SCORED, UNSCORED, Answer, InBatches, Verdict, revision_of
from workbench.behaviour.number_scores import LEAST_MASS, weighted_score
from workbench.behaviour.number_tokens import number_tokens
from workbench.behaviour.rubric import Rubric
from workbench.behaviour.rubric import rubric as rubric_of
from workbench.units import budget_on, kinds_of, length_sorted

LOGIT_BYTES = 2**30  # of the logits behind all numbers of a unit of work, in float32
WORTH_SHARING = 16  # tokens that all rows begin with


class LocalJudge(InBatches):
    """Scores answers with a loaded model and a rubric of mode "number".

    The score is Σ i·p(i) / Σ p(i) over all numbers of the scale, where p(i) is the probability that the judge's reply
    begins with exactly that number (the formula is `NumberTokens`'); None where Σ p(i), the mass, is below
    `least_mass`. Nothing is sampled. Cost: two forward passes a unit of answers of similar length (at most `max_tokens`
    padded tokens), the rubric's beginning read once where the model allows; the first call measures on two prompts
    which ways of reading give whole forwards' numbers (`forwards` and `measuring` count both). Images go to an
    image-text judge; a text model leaves such answers unscored, with that reason. In bfloat16 the last digits of a
    score depend on the batch. Source: Betley et al. 2025, arXiv:2502.17424, for numbers of one token.
    """

    def __init__(
        self,
        model: Any,
        rubric: str | Path | Rubric = "aligned",
        *,
        least_mass: float = LEAST_MASS,
        max_tokens: int | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        """`options` fill the rubric's own placeholders. ValueError for rubrics of another mode, for a judge without
        chat template or digits, and for a template that drops the rubric's system text."""
        self.rubric = rubric_of(rubric, **(options or {}))
        if self.rubric.mode != "number":
            raise ValueError(
                f"rubric {self.rubric.name!r} asks for a reply in the form {self.rubric.mode!r}: a local judge reads "
                "probabilities of bare numbers, expected mode 'number'. Serve the model, and use "
                "wb.judge('openai:NAME')."
            )
        if isinstance(model.active, tuple):
            raise ValueError("the judge's rows have an adapter each: expected one variant, model.variant(name).")
        self.model, self.least_mass, self.max_tokens = model, least_mass, max_tokens
        self.numbers = number_tokens(model.encoder, self.rubric.scale)
        self.forwards = self.measuring = 0  # forward passes for answers, and to measure what the model allows
        self._common = self._beginning_ids()
        self._beginning: Prefix | str | None = None  # a reason: it is read again every time
        self._controls = control_tokens(model.tokenizer)

    @property
    def name(self) -> str:
        return f"hf:{self.model.name}"

    @property
    def revision(self) -> str:
        model = self.model
        return revision_of(self.rubric.revision, model.identity, model.active, "all numbers 1", self.least_mass)

    @property
    def measures(self) -> str:  # type: ignore[override]
        return self.rubric.measures

    @property
    def scale(self) -> tuple[float, float]:  # type: ignore[override]
        return float(self.rubric.scale[0]), float(self.rubric.scale[1])

    def score_all(self, answers: Sequence[Answer]) -> list[Verdict]:
        """One verdict an answer. Facts: `mass`, `numbers` (tokens a number has), `likeliest` number."""
        verdicts: dict[int, Verdict] = {}
        encoded: dict[int, Encoded] = {}
        for n, answer in enumerate(answers):
            given = self._encoded(answer)
            if isinstance(given, str):
                verdicts[n] = Verdict(UNSCORED, None, given)
            else:
                encoded[n] = given
        for unit in self._units(encoded):
            verdicts |= dict(zip(unit, self._scored([encoded[n] for n in unit]), strict=True))
        return [verdicts[n] for n in range(len(answers))]

    def _encoded(self, answer: Answer) -> Encoded | str:
        """The judged prompt as ids, or why there is none."""
        if why := self.rubric.why_not(answer):
            return why
        texts = [part for turn in answer.prompt.messages for part in turn.parts if isinstance(part, str)]
        texts += [answer.text, answer.prompt.text or "", answer.prompt.prefill or ""]
        if control := next((one for one in self._controls if any(one in text for text in texts)), None):
            return f"the text holds {control!r}, which the judge would read as a control token"
        if answer.prompt.images and self.model.encoder.processor is None:
            return "the prompt has images, and this judge reads text only"
        try:
            one = self.model.encoder.encode(self._asked(answer))
        except (ValueError, OSError, TemplateError) as error:  # a template that refuses, a picture that cannot be read
            return f"the judge cannot read it: {error}"
        most = _longest(self.model) - max(map(len, self.numbers.tree.paths))
        return f"too long: {len(one)} tokens, the judge reads {most}" if len(one) > most else one

    def _asked(self, answer: Answer) -> Prompt:
        turns = []
        for message in self.rubric.messages(answer):
            content = message["content"]
            parts = [content] if isinstance(content, str) else [part.get("path") or part["text"] for part in content]
            turns.append(Message(message["role"], tuple(parts)))
        return Prompt(answer.prompt.id, tuple(turns))

    def _units(self, encoded: dict[int, Encoded]) -> Iterator[list[int]]:
        model, nodes = self.model, len(self.numbers.tree)
        listed, places = list(encoded.values()), list(encoded)
        lengths = [len(one) for one in listed]
        budget = budget_on(model.device) if self.max_tokens is None else self.max_tokens
        most = max(1, LOGIT_BYTES // (4 * nodes * model.module.config.get_text_config(decoder=True).vocab_size))
        for unit in length_sorted(lengths, budget, kinds_of(model, listed, lengths)):
            for first in range(0, len(unit), most):
                yield [places[i] for i in unit[first : first + most]]

    def _scored(self, unit: list[Encoded]) -> Iterator[Verdict]:
        with self._counted("measuring"):
            way = way_of(self.model, unit, self.numbers.tree)
        parts = [unit] if way == "tree" else [[one] for one in unit]  # a copy of the cache for each number
        for part in parts:
            with self._counted("forwards"):
                behind = read(self.model, part, beginning := self._shared(part))
            if beginning is None:
                self._keep_beginning(behind)
            first = behind.logits
            tree = self.numbers.followed(first)
            with self._counted("forwards"):
                after = branch_logits(self.model, behind, tree, way) if len(tree) else first[:, None][:, :0]
            for row, log_probs in enumerate(self.numbers.log_probs(first, after, tree)):
                yield self._verdict(log_probs, int(first[row].argmax()))

    def _verdict(self, log_probs: dict[str, float], top: int) -> Verdict:
        score, mass = weighted_score(log_probs, self.rubric.scale, self.least_mass)
        facts = {"mass": mass, "numbers": self.numbers.scheme}
        if log_probs:
            facts["likeliest"] = int(max(log_probs, key=lambda text: log_probs[text]))
        if score is not None:
            return Verdict(SCORED, score, f"{mass:.3f} of the probability is on numbers", facts)
        for word in self.rubric.abstain:
            if self.model.encoder.continuation_ids(word)[:1] == [top]:
                return Verdict(UNSCORED, None, f"abstained: the likeliest reply begins like {word}", facts)
        said = self.model.tokenizer.decode([top])
        why = f"{mass:.3f} of the probability is on numbers, less than {self.least_mass}: the likeliest reply begins "
        return Verdict(UNSCORED, None, f"{why}with {said!r}", facts)

    def _beginning_ids(self) -> list[int]:
        """The tokens that every judged prompt begins with: those in front of the first text that differs."""
        asked = [Answer(Prompt("q", (Message("user", (text,)),)), text, base=text) for text in ("a", "b", " c", "Ω")]
        try:
            rows = [self.model.encoder.encode(self._asked(answer)).input_ids.tolist() for answer in asked]
        except (ValueError, TemplateError) as error:
            raise ValueError(f"the judge {self.model.name} cannot be asked by this rubric: {error}") from None
        same = next((n for n, ids in enumerate(zip(*rows, strict=False)) if len(set(ids)) > 1), 0)
        return rows[0][:same]

    def _shared(self, unit: Sequence[Encoded]) -> Prefix | None:
        common, columns = self._common, max(map(len, unit))
        if not isinstance(self._beginning, Prefix) or not may_share(self.model, columns + 8):
            return None
        alike = all(one.input_ids[: len(common)].tolist() == common and not one.n_images for one in unit)
        return self._beginning if alike else None

    def _keep_beginning(self, behind: Any) -> None:
        """Takes the beginning from the cache of a unit that has been read, and measures that it may be shared."""
        rows, common = behind.batch.encoded, self._common
        row = max(range(len(rows)), key=lambda row: len(rows[row]))  # the one without pads
        if self._beginning is not None or rows[row].n_images or len(common) < WORTH_SHARING:
            return
        if not may_share(self.model, len(rows[row]) + 8) or rows[row].input_ids[: len(common)].tolist() != common:
            return
        try:
            kept = beginning_of(behind, row, len(common))
        except CannotReplay as error:
            self._beginning = str(error)
            return
        with self._counted("measuring"):
            self._beginning = why_not_shared(self.model, kept, rows[row]) or kept

    @contextmanager
    def _counted(self, what: str) -> Iterator[None]:
        def count(module: Any, args: Any) -> None:
            setattr(self, what, getattr(self, what) + 1)

        handle = self.model.module.register_forward_pre_hook(count)
        try:
            yield
        finally:
            handle.remove()


def control_tokens(tokenizer: Any) -> list[str]:
    """The texts that the tokenizer reads as special tokens, wherever they stand."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    return sorted({*tokenizer.all_special_tokens, *(str(token) for token in added if token.special)})


def _longest(model: Any) -> int:
    text = model.module.config.get_text_config(decoder=True)
    return int(getattr(text, "max_position_embeddings", None) or 10**9)


def local_judge(
    model: Any,
    rubric: str | Path | Rubric = "aligned",
    *,
    least_mass: float = LEAST_MASS,
    max_tokens: int | None = None,
    adapter: str | Path | None = None,
    dtype: str = "auto",
    device: str | None = None,
    model_revision: str | None = None,
    options: Mapping[str, str] | None = None,
) -> LocalJudge:
    """A LocalJudge of a checkpoint folder or hub name (loaded here: for two rubrics, load the model once and give it to
    both), or of a loaded model."""
    if isinstance(model, str | Path):
        model = load_model(model, adapter=adapter, dtype=dtype, device=device, revision=model_revision)
    elif adapter is not None or dtype != "auto" or device is not None or model_revision is not None:
        raise ValueError("adapter, dtype, device and model_revision choose how a checkpoint is loaded: this model is.")
    return LocalJudge(model, rubric, least_mass=least_mass, max_tokens=max_tokens, options=options)
