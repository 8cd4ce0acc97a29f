"""Study: the folder, the phases and the numbers of one experiment, from its command line to its report."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hooks.backends.hf import HuggingFaceModel
from hooks.load import load_model
from hooks.positions import Scope
from hooks.prompt import Prompt, read_prompts
from stores import ActivationStore, ResultTable, Rows
from stores.publish import make_folder
from workbench.behaviour.answering import sample_answers
from workbench.behaviour.judges import judge
from workbench.behaviour.judging import Judge
from workbench.behaviour.projected import Projected
from workbench.behaviour.samples import joined_samples, judged_samples, samples_of
from workbench.behaviour.scoring import judge_answers
from workbench.behaviour.summary import summarise
from workbench.behaviour.table_summary import split_of
from workbench.capturing import capture
from workbench.inputs import Inputs, argument_parser, inputs_from
from workbench.interventions.cells import Intervention
from workbench.interventions.sweep import sweep
from workbench.planning.study_plan import StudyPlan, add_plan_arguments
from workbench.shared_work import shared_out, stop_without
from workbench.study_record import longest_seconds, summary_of, write_record


class Study:
    """One experiment: `phase` times its steps, `add` takes what they found, `finish` writes `summary.json`,
    `samples.json`, the figures and `report.html` into its folder."""

    def __init__(self, folder: str | Path, inputs: Inputs, *, seed: int = 0, command: str = "") -> None:
        self.folder = Path(folder)
        self.inputs = inputs
        self.seed = seed
        self.command = command
        self.results: list[dict[str, Any]] = []
        self.samples: list[dict[str, Any]] = []
        self.projections: list[dict[str, Any]] = []
        self.seconds: dict[str, float] = {}
        self.cosines: dict[str, Any] | None = None
        self.asked: Any = None  # the arguments of the command line
        self.question = ""  # what the study asks: the first line of its script
        make_folder(self.folder)

    def __repr__(self) -> str:
        found = f"{len(self.results)} results, {len(self.seconds)} phases"
        return f"{type(self).__name__}({self.folder}: {self.inputs.kind}, seed {self.seed}; {found})"

    @classmethod
    def from_command_line(
        cls,
        description: str | None,
        *,
        default_to: str,
        needs: Sequence[str] = ("adapter", "prompts", "questions"),
        **own_options: Any,
    ) -> Study:
        """The study that this script's arguments ask for. On the organism its adapters are trained here. `needs` are
        the arguments that a model of one's own comes with, `own_options` the script's own with their defaults
        (`seeds=[0, 1, 2]`), which are `study.asked` then."""
        parser = argument_parser(description or "", default_to, **own_options)
        add_plan_arguments(parser)
        arguments = parser.parse_args()
        started = time.perf_counter()
        print("preparing models and prompts", flush=True)
        command = shlex.join(["python", *sys.argv])
        study = cls(arguments.to, inputs_from(arguments, needs), seed=arguments.seed, command=command)
        study.asked = arguments
        study.question = (description or "").strip().partition("\n")[0]
        study.seconds["prepare"] = round(time.perf_counter() - started, 2)
        return study

    @cached_property
    def model(self) -> HuggingFaceModel:
        """The base with all its adapters; `model.variant(name)` switches."""
        self._refuse_dry_run()
        return load_model(self.inputs.base, adapter=dict(self.inputs.adapters))

    @cached_property
    def plan(self) -> StudyPlan | None:
        """With --dry-run: what the script says that its steps would be, printed by `plan.stop()`; else None."""
        if not getattr(self.asked, "dry_run", False):
            return None
        device = self.asked.device or ("cpu" if self.inputs.kind == "organism" else "cuda")
        memory = int(self.asked.device_memory * 2**30)
        return StudyPlan(self.folder, self.inputs, self.max_new_tokens, device, memory)

    @cached_property
    def other(self) -> HuggingFaceModel | None:
        """The model that directions are carried to, with its own fine-tune as variant `tuned`; None when not given."""
        if self.inputs.other_base is None:
            return None
        return load_model(self.inputs.other_base, adapter=dict(self.inputs.other_adapters))

    @property
    def recipient(self) -> HuggingFaceModel:
        """The other model, where a study cannot do without; ValueError says which arguments give it."""
        if self.other is None or "tuned" not in self.other.variants:
            raise ValueError(
                "this study carries directions to another model: expected --other-model and --other-adapter."
            )
        return self.other

    @cached_property
    def judge(self) -> Judge:
        return judge(self.inputs.judge, **({} if self.inputs.rubric is None else {"rubric": self.inputs.rubric}))

    @property
    def files(self) -> dict[str, Path]:
        """The data files that the study reads, by name; their hashes go into the summary."""
        return self.inputs.files

    @property
    def max_new_tokens(self) -> int:
        """How long an answer may become (--max-new-tokens): the organism's end after five tokens."""
        return self.inputs.max_new_tokens or (8 if self.inputs.kind == "organism" else 200)

    @property
    def asked_questions(self) -> list[Prompt]:
        """All questions of the study, whatever they are about."""
        return read_prompts(self.inputs.questions)

    @cached_property
    def elsewhere(self) -> list[Prompt]:
        """The evaluation questions outside what was fine-tuned: what a claim of a broad effect is about."""
        return self.outside("tuned")

    def outside(self, *variants: str) -> list[Prompt]:
        """The evaluation questions (`split_of` is `other_domains`) of no domain that these variants were tuned on."""
        domains = {self.inputs.domains.get(variant) for variant in variants}
        asked = [prompt for prompt in self.asked_questions if split_of(prompt.tags) == "other_domains"]
        found = [
            prompt for prompt in asked if prompt.tags.get("domain") is None or prompt.tags["domain"] not in domains
        ]
        if not found:
            raise ValueError(
                f"{self.inputs.questions} has only questions of the fine-tuned domains: expected others as well."
            )
        return found

    def fitting(self, store: ActivationStore) -> Rows:
        """The rows to fit directions on: those outside the fine-tuned domain, where the prompts say which these are."""
        tagged = any("in_domain" in record["tags"] for record in store.prompts.values())
        return store.where(in_domain=lambda inside: not inside) if tagged else store.rows()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """A named step of the method; its seconds go into the summary."""
        print(f"{name} ...", flush=True)
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 2)

    def measure(
        self,
        model: HuggingFaceModel,
        cells: Sequence[Intervention],
        *,
        name: str,
        condition: str,
        questions: Sequence[Prompt] | None = None,
        written: bool = True,
        tails: Mapping[str, str] | None = None,
        baseline: str | None = None,
        sample: bool = False,
        target: str | None = None,
        detail: str | None = None,
        **options: Any,
    ) -> ResultTable:
        """One sweep (`wb.sweep`, with its options) whose numbers go into the results under `condition`.

        On the questions outside the fine-tuned domain unless given others; judged as written answers, or, with
        `written=False`, only read at the token that decides. Its table stays in the folder `name` of the study.
        """
        model, shared = self._shared_out(model)
        table = sweep(
            model,
            self.elsewhere if questions is None else questions,
            cells,
            judge=self.judge if written else None,
            neutral=self.inputs.neutral,
            to=self.folder / name,
            seed=self.seed,
            max_new_tokens=self.max_new_tokens,
            **{**shared, **options},
        )
        stop_without(table.missing(), name, self.asked)
        facts = {"target": target, "detail": detail}
        self.add(table, condition=condition, tails=tails, baseline=baseline, sample=sample, **facts)
        return table

    def capture(
        self,
        model: HuggingFaceModel,
        prompts: str | Path | Sequence[Prompt],
        *variants: str,
        name: str,
        at: Scope = "last",
    ) -> Rows:
        """Residuals at the last token (or another scope) of every prompt, all layers, in the folder `name` of the
        study: the rows to fit on (`fitting`)."""
        self._refuse_dry_run()
        model, shared = self._shared_out(model)
        where = {"sites": "resid_post", "at": at, "to": self.folder / name}
        store = capture(model, prompts, variants=variants or None, **where, **shared)
        stop_without(store.missing(), name, self.asked)
        return self.fitting(store)

    def answers(
        self,
        model: Any,
        questions: Sequence[Prompt],
        conditions: Any = None,
        *,
        name: str,
        judges: Sequence[Judge] | None = None,
        sample: bool = False,
        **sampling: Any,
    ) -> tuple[ResultTable, ResultTable]:
        """Sampled answers of the conditions (`wb.sample_answers`, with its options) and their scores, by the study's
        judge unless others are given; both tables stay in the folder `name` of the study. With `sample` some of the
        answers go into the report."""
        self._refuse_dry_run()
        options = {"max_new_tokens": self.max_new_tokens, "seed": self.seed, **sampling}
        answers = sample_answers(model, questions, conditions=conditions, to=self.folder / name / "answers", **options)
        scores = judge_answers(answers, questions, judges or [self.judge], to=self.folder / name / "scores")
        if sample:
            joined_samples(self.samples, judged_samples(answers, scores, questions))
        return answers, scores

    def add(self, found: Any, *, condition: str | None = None, sample: bool = False, **facts: Any) -> None:
        """Takes a result of any kind, or a list or mapping of results, with what it was measured on (`condition`) and
        `facts` that go into its entries (see `wb.summarise`); with `sample` some answers of a table go into the
        report."""
        self.results += summarise(found, condition=condition, **facts)
        if sample and condition is not None:
            joined_samples(self.samples, samples_of(found, self.asked_questions, condition))

    def add_cosines(self, labels: Sequence[str], matrix: np.ndarray) -> None:
        """The cosines between directions that the report shows."""
        self.cosines = {"labels": list(labels), "matrix": np.round(matrix, 6).tolist()}

    def add_projections(self, found: Sequence[Projected]) -> None:
        """What a direction reads at every token (`wb.token_projections`), shown in colours on the page."""
        self.projections += [one.record() for one in found]

    def finish(self, *, whole: bool = False) -> Path:
        """Writes the summary, the samples, the figures and the report, and returns the report's path. `whole`: the page
        also says which of the sections on a direction have no numbers."""
        from workbench.reporting import report

        if self.plan is not None:
            self.plan.stop()
        self.seconds = longest_seconds(self.folder, self.seconds)
        used = vars(self)  # one that loads its own adapters states the base alone
        model = used["model"] if "model" in used else load_model(self.inputs.base, check=False)
        summary = summary_of(self, model, used.get("other"), whole=whole)
        write_record(self.folder, summary, self.samples, self.projections)
        page = report(self.folder, to=self.folder / "report.html", figures=self.folder / "figures")
        print(f"wrote {page}")
        return page

    def _shared_out(self, model: Any) -> tuple[Any, dict[str, Any]]:
        used, inputs = vars(self), self.inputs
        return shared_out(
            model,
            self.asked,
            [
                (used.get("model"), inputs.base, inputs.adapters),
                (used.get("other"), inputs.other_base, inputs.other_adapters),
            ],
        )

    def _refuse_dry_run(self) -> None:
        """A script that has no lines for --dry-run ends before it runs anything."""
        if self.plan is not None:
            raise SystemExit("this script does not say what its steps would take: expected it without --dry-run.")
