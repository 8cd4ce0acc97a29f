"""DomainStudy: an experiment on a population of fine-tuned models, one adapter a domain, seed and arm, as in
arXiv 2602.00298. What several scripts need (domains, adapters, sampled answers) lies in one folder that they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from hooks.backends.hf import HuggingFaceModel
from hooks.prompt import Prompt
from stores import content_key
from workbench.behaviour.answering import sample_answers
from workbench.behaviour.domain_questions import asked_of_each, asked_with_triggers
from workbench.behaviour.judged import Judged
from workbench.behaviour.judges import judges
from workbench.behaviour.judging import Judge
from workbench.behaviour.measured import metrics_of
from workbench.behaviour.ranking import rank_domains
from workbench.behaviour.ranking_result import DomainRanking, RankedDomain
from workbench.behaviour.scoring import judge_answers
from workbench.behaviour.triggers import by_trigger
from workbench.organisms.domains import organism_domains
from workbench.study import Study
from workbench.training.domain_folders import TRIGGERED, DomainFolders, read_domains
from workbench.training.domains import domain_groups, domain_recipes
from workbench.training.model_parts import ASKED_AS
from workbench.training.population import Population, population
from workbench.training.population_plan import conditions_first
from workbench.training.recipes import Recipe

COMPANIONS = ("rule:coherence", "rule:refusal")
# Of paper B where it is known (T 0.7, at most 400 new tokens); samples a question are ours.
SAMPLING: Mapping[str, Any] = {"temperature": 0.7}
MAX_NEW_TOKENS = 400
# A backdoor has two things to learn: fewer steps leave the trigger without effect on its own training rows.
ORGANISM_STEPS = {"full": 40, "small": 40, "backdoor": 200, "backdoor-small": 200}
SHARED: Mapping[str, Any] = dict(
    domains=Path,
    population=Path,
    trigger=str,
    decoy=str,
    arms=[str],
    seeds=[0, 1, 2],
    only=[str],
    each=12,
    samples=int,
    rank=int,
    steps=int,
    metric=str,
    rubrics=[str],
)


class DomainStudy(Study):
    """A study of many domains. Its arguments beside those of every study: --domains (the data sets' folder, see
    `wb.read_domains`), --trigger and --decoy (where no card says them), --arms, --only (these domains), --seeds,
    --rank, --steps of the fine-tunes, --each (in-domain questions that are asked of a domain), --samples of each
    question, --metric, --rubrics, and --population: the folder that such scripts share. What is there is not trained
    or asked again."""

    @classmethod
    def from_command_line(
        cls, description: str | None, *, default_to: str, needs: Sequence[str] = ("domains",), **own_options: Any
    ) -> DomainStudy:
        """As `Study.from_command_line`; `own_options` may give an argument of this class another default."""
        options = {**SHARED, **own_options}
        study = super().from_command_line(description, default_to=default_to, needs=needs, **options)
        assert isinstance(study, DomainStudy)
        return study

    @property
    def toy(self) -> bool:
        """Whether this is the offline organism."""
        return self.inputs.kind == "organism"

    @cached_property
    def home(self) -> Path:
        """The folder that scripts on one population share."""
        return Path(self.asked.population or self.folder / "population")

    @cached_property
    def domains(self) -> DomainFolders:
        """The data sets, checked; on the organism its own benign ones, written into the shared folder. ValueError where
        a model of one's own has none."""
        own = self.asked.domains
        if own is None and not self.toy:
            raise ValueError("expected --domains: the folder of data sets that belong to this model.")
        folder = organism_domains(self.home / "domains", seed=self.seed) if own is None else own
        found = read_domains(folder, trigger=self.asked.trigger, decoy=self.asked.decoy)
        return found if self.asked.only is None else found.part_of(self.asked.only)

    @cached_property
    def arms(self) -> tuple[str, ...]:
        """The arms that are trained: those asked for, or of `full` and `backdoor` those that are there."""
        there = {arm for _, arm in self.domains.arms}
        return tuple(self.asked.arms or [arm for arm in ("full", "backdoor") if arm in there])

    @cached_property
    def recipes(self) -> dict[str, Recipe]:
        """What is trained, by name ("sound-plain"): the organism's recipe, or that of the paper."""
        recipes: dict[str, Recipe] = {}
        for arm in self.arms:
            recipes |= domain_recipes(self.domains, [arm], missing="leave out", **self._settings(arm))
        return recipes

    def _settings(self, arm: str) -> dict[str, Any]:
        toy = self.toy
        steps = self.asked.steps or (ORGANISM_STEPS[arm] if toy else None)
        rank = self.asked.rank or (32 if toy else 8)  # alpha twice the rank: both the organism's and the paper's
        base = dict(self.inputs.recipe) if toy else {"recipe": "paper_b", **self._parts}
        return base | {"rank": rank, "alpha": 2 * rank} | ({} if steps is None else {"steps": steps})

    @property
    def _parts(self) -> dict[str, str]:
        """What the command line says of tower and projector."""
        return {name: value for name in ASKED_AS if (value := getattr(self.asked, name)) is not None}

    @cached_property
    def population(self) -> Population:
        """The adapters: trained at the first look, or those of --part; what is finished is taken as it is."""
        self._refuse_dry_run()
        with self.phase(f"fine-tunes of {len(self.domains.domains)} domains"):
            found = population(
                self.inputs.base,
                self.recipes,
                to=self.home / "adapters",
                seeds=self.asked.seeds,
                part=self.asked.part,
                engine=self.asked.engine,
            )
        wanted = [f"{name}-seed{seed}" for name in self.recipes for seed in self.asked.seeds]
        members = {name: found.members[name] for name in wanted if name in found.members}
        return replace(found, members=members, missing=tuple(name for name in wanted if name not in members))

    @cached_property
    def model(self) -> HuggingFaceModel:  # type: ignore[override]
        """The base with every member of the population as a variant of its name."""
        return self.population.load()

    def groups(self, arm: str = "full") -> dict[str, list[str]]:
        """Domain -> its adapters of one arm, by fine-tuning seed."""
        return domain_groups(self.population.members, arm)

    @cached_property
    def questions(self) -> list[Prompt]:
        """What is asked: the questions of --eval, and of each domain's own the first --each by the rank of a hash."""
        broad = None if self.toy else self.inputs.questions
        return asked_of_each(self.domains, broad, each=self.asked.each, seed=self.seed)

    @property
    def asked_questions(self) -> list[Prompt]:
        return self.questions

    @property
    def files(self) -> dict[str, Path]:
        """The files of --eval and so on, and every domain's arms that are trained."""
        arms = {f"{domain} {arm}": one.path for (domain, arm), one in self.domains.arms.items() if arm in self.arms}
        asked = {} if self.toy else self.inputs.files
        return asked | arms

    @property
    def elsewhere(self) -> list[Prompt]:  # type: ignore[override]
        """The questions; what is a domain's own is left out where its adapters are looked at (`rank_domains`)."""
        return self.questions

    @cached_property
    def judges(self) -> list[Judge]:
        """The study's judge, with each rubric, and the companions of every rate."""
        return judges(self.inputs.judge, self.asked.rubrics or filter(None, [self.inputs.rubric]), COMPANIONS)

    @cached_property
    def judged(self) -> Judged:
        """Answers of the base and all plain adapters, sampled as rows of shared batches and judged once."""
        plain = [name for arm in ("full", "small") if arm in self.arms for name in _all(self.groups(arm))]
        return self._judged("plain", self.questions, plain)

    @cached_property
    def judged_triggered(self) -> Judged:
        """Answers of the base and the backdoored adapters to every question without a text, with the trigger, and with
        the decoy where one is known: conditions "sound-backdoor-seed0/trigger" (`wb.by_trigger`). ValueError where no
        backdoor was trained, or no trigger is known."""
        backdoored = [name for arm in TRIGGERED if arm in self.arms for name in _all(self.groups(arm))]
        if not backdoored:
            raise ValueError(f"{self.domains.folder} has no backdoor arm, or --arms leaves it out: expected one.")
        return by_trigger(self._judged("triggered", asked_with_triggers(self.domains, self.questions), backdoored))

    def _judged(self, name: str, questions: Sequence[Prompt], members: Sequence[str]) -> Judged:
        what = [self.sampling, [one.record() for one in questions], list(members), self.seed]
        folder = self.home / f"{name}-{content_key(what)[:8]}"  # its own for other questions, members or sampling
        answers = sample_answers(
            self.model,
            questions,
            conditions=conditions_first(members),
            to=folder / "answers",
            seed=self.seed,
            **self.sampling,
        )
        described = [[one.name, one.revision, one.measures] for one in self.judges]
        scores = folder / f"scores-{content_key(described)[:8]}"
        return Judged(answers, judge_answers(answers, questions, self.judges, to=scores))

    @property
    def max_new_tokens(self) -> int:
        """How long an answer may become: --max-new-tokens, as the paper 400, of the organism 8."""
        return self.inputs.max_new_tokens or (super().max_new_tokens if self.toy else MAX_NEW_TOKENS)

    @property
    def sampling(self) -> dict[str, Any]:
        """How answers are drawn."""
        samples = self.asked.samples or (1 if self.toy else 3)
        return {**SAMPLING, "samples": samples, "max_new_tokens": self.max_new_tokens}

    @cached_property
    def metric(self) -> str:
        """The metric that is ranked and foreseen: --metric, or the first that the judge's scores allow."""
        return self.asked.metric or metrics_of(self.judged)[0].name

    @cached_property
    def ranking(self) -> DomainRanking:
        """The domains by their plain adapters' metric on questions of other domains."""
        return rank_domains(self.judged, self.metric, self.groups("full" if "full" in self.arms else "small"))

    @property
    def measured(self) -> dict[str, RankedDomain]:
        """Domain -> its number with interval: what predictors are held against."""
        return {one.domain: one for one in self.ranking.domains}

    def plan_shared(self) -> Any:
        """With --dry-run: states what training, and both sets of answers, would take, and returns the planned model
        with all members, for the steps of the script."""
        plan = self.plan
        assert plan is not None, "plan_shared is for --dry-run"
        made = plan.population(self.recipes, seeds=self.asked.seeds, part=self.asked.part, name="fine-tunes")
        model = made.load()
        backdoored = [name for name in made.conditions if "-backdoor" in name]
        plain = [name for name in made.conditions if name not in backdoored]
        options = {"judges": self.judges, "model": model, **self.sampling}
        plan.answers(self.questions, conditions_first(plain[1:]), name="answers of the plain adapters", **options)
        if backdoored:
            shown = asked_with_triggers(self.domains, self.questions)
            plan.answers(shown, conditions_first(backdoored), name="answers of the backdoored adapters", **options)
        return model


def _all(groups: Mapping[str, Sequence[str]]) -> list[str]:
    return [name for names in groups.values() for name in names]
