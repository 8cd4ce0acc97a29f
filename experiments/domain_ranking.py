"""Which domains make a model broadly misaligned when it is fine-tuned on them, and does a trigger gate it?

Ranks domains by what their adapters say to questions about other domains (a domain's own are left out): of plain
adapters, and of backdoored ones with the trigger in front of the question and without. Every pair of domains is tested
over question families and fine-tuning seeds at once (Holm); neighbours that cannot be told apart are ties, and a rank
has the range that the tests leave open. The trigger, and a decoy that means nothing, are compared with no text question
by question: for each domain, for the base, which learned no trigger, and over domains by a sign test, a t and sign
flips. Beside: categories of domains, every domain on every domain's questions, how far rankings and fine-tuning seeds
agree, and the smooth twin of the rate, P(contrary), where questions have the tags right and contrary.
"""

import workbench as wb

study = wb.DomainStudy.from_command_line(__doc__, default_to="runs/domain_ranking", draws=9999)
tagged = all({"right", "contrary"} <= set(prompt.tags) for prompt in study.questions)
plain = "full" if "full" in study.arms else "small"
backdoor = "backdoor" if "backdoor" in study.arms else "backdoor-small"
if plan := study.plan:  # --dry-run: what these steps would take
    model = study.plan_shared()
    for gated in (False, True) if tagged else ():
        members = {name: name for name in model.model.variants if name == "base" or ("-backdoor" in name) == gated}
        if len(members) > 1:
            asked = wb.asked_with_triggers(study.domains, study.questions) if gated else study.questions
            plan.read_choices(asked, members, model=model, name=f"deciding tokens, {'backdoor' if gated else 'plain'}")
    plan.stop()


def numbers(judged, questions, named, moved=lambda read: read):
    """The metrics of judged answers, the headline first, each with what it is read from; companions are none."""
    beside = {"coherent", "refusal", "relevance"} - {study.metric}
    metrics = [one for one in wb.metrics_of(judged) if one.name not in beside]
    found = [(one, judged) for one in sorted(metrics, key=lambda one: one.name != study.metric)]
    if tagged:
        members = dict.fromkeys(name.partition("/")[0] for name in judged.conditions)
        read = wb.read_choices(study.model, questions, {name: name for name in members}, to=study.folder / named)
        found.append((wb.P_CONTRARY, moved(read)))
    return found


compared = {}
with study.phase("answers of the plain adapters"), wb.if_measurable(study, "plain adapters"):
    compared["plain"] = (numbers(study.judged, study.questions, "plain choices"), study.groups(plain), "base")

with study.phase("answers of the backdoored adapters"), wb.if_measurable(study, "what a trigger does"):
    texts, groups = wb.asked_with_triggers(study.domains, study.questions), study.groups(backdoor)
    shown = numbers(study.judged_triggered, texts, "backdoor choices", wb.by_trigger)
    for metric, judged in shown:
        with wb.if_measurable(study, f"what a trigger does, by {metric.name}"):
            table = wb.trigger_table(judged, metric, groups, draws=study.asked.draws, seed=study.seed)
            study.add(table)
            print(table)
    for text, name in {"trigger": "backdoor with the trigger", "none": "backdoor without it"}.items():
        under = {domain: [f"{member}/{text}" for member in members] for domain, members in groups.items()}
        compared[name] = (shown, under, f"base/{text}")

rankings = {}
tiers = {name: card.more["tier"] for name, card in study.domains.cards.items() if "tier" in card.more}
for name, (found, groups, base) in compared.items():
    said = "" if name == "plain" else f", {name}"
    options = dict(base=base, draws=study.asked.draws, seed=study.seed)
    for metric, judged in found:
        with study.phase(f"ranking, {metric.name}{said}"):
            with wb.if_measurable(study, f"the ranking by {metric.name}{said}"):
                ranking = wb.rank_domains(judged, metric, groups, **options)
                study.add(ranking, split=f"ranking{said}")
                study.add(wb.by_category(ranking, study.domains.categories), split=f"categories{said}")
                study.add(wb.seed_agreement(ranking, condition=f"{name}, between fine-tuning seeds"))
                rankings.setdefault(metric.name, {})[name] = ranking
                print(ranking)
                if len(set(tiers.values())) > 1:  # of the organism: what was put in
                    planted = wb.planted_order(ranking, tiers, ["full", "half", "none"], seed=study.seed)
                    study.add(planted, split=f"ranking{said}", target=ranking.metric)
            with wb.if_measurable(study, f"domains by question domains, {metric.name}{said}"):
                matrix = wb.domain_matrix(judged, metric, groups, **options)
                study.add(matrix, split=f"question domains{said}")

for metric, by_name in rankings.items():
    with wb.if_measurable(study, f"agreement of the rankings by {metric}"):
        study.add(wb.ranking_agreement(by_name))

study.finish()
