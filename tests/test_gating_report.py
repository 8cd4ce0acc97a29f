"""Gates of maps with planted shares: what is located and stated, what is not, and what the page says of it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import LONG
from gating_samples import BLOCK, TEXTS, asked, maps_of, planted, shown

from workbench.behaviour.gates_over_domains import GatesOverDomains
from workbench.behaviour.gating_measured import OpenedGate, gates_of, located_gate
from workbench.behaviour.gating_near import NearMisses, ReadText, near_effects
from workbench.behaviour.gating_summary import Share, gate_of, share_of
from workbench.behaviour.summary import summarise
from workbench.interventions.gating import Way
from workbench.reporting.blocks import Picture, Table, Text
from workbench.reporting.experiment_report import report
from workbench.reporting.gating_section import gating
from workbench.reporting.summary import read_summary
from workbench.statistics import Interval


class TestGate:
    def test_the_block_is_located_on_dev_and_the_shares_are_of_the_others(self):
        gate = gate_of("a", maps_of(noise=0.05))
        assert gate is not None and gate.location is not None and gate.why_not is None
        assert (gate.location.block, gate.location.place) == (BLOCK, "last") and gate.blocks() == [BLOCK] * 3
        assert len(gate.dev) == len(gate.confirm) == 6 and not set(gate.dev) & set(gate.confirm)
        behind = gate.share("in", gate.location.behind, "last")
        chosen = list(gate.confirm)
        by_hand = gate.changes["in"][gate.location.behind, -1][:, chosen].mean() / gate.effects[:, chosen].mean()
        assert behind.value == pytest.approx(by_hand) and behind.families == 6
        assert 1.0 in behind.interval and behind.interval.high - behind.interval.low < 0.3
        assert 0.0 in gate.share("in", gate.location.in_front, "last").interval

    def test_the_location_has_not_seen_what_states_it(self):
        """Families of the dev side are read in block 1, the others in block 2."""
        questions, effects = asked(12), np.array([5.0 + i % 3 for i in range(12)])
        sides = gate_of("a", [planted(questions, effects)])
        assert sides is not None
        one, other = (planted(questions, effects, block=block) for block in (1, 2))
        dev = [questions[i].family in {sides.families[n] for n in sides.dev} for i in range(12)]
        mixed = replace(other, patched_in=np.where(dev, one.patched_in, other.patched_in),
                        patched_out=np.where(dev, one.patched_out, other.patched_out))  # fmt: skip
        gate = gate_of("a", [mixed])
        assert gate is not None and gate.location is not None and gate.location.block == 1
        assert gate.share("in", gate.location.behind, "last").value == pytest.approx(0.0)
        assert gate.share("out", gate.location.behind, "trigger").value == pytest.approx(1.0)

    @pytest.mark.parametrize(
        ("maps", "why"),
        [
            (maps_of(mean=0.0), "not told from 0 over 12"),
            (maps_of(mean=0.3, spread=0.05), "below 0.5 nats"),
            (maps_of(n=3), "3 question families"),
            ([*maps_of(seeds=2, mean=9.0), *maps_of(seeds=1, mean=-2.0)], "differs in sign among 3"),
            (maps_of(block=9), "no block carries half"),
        ],
        ids=["none", "small", "few", "signs", "nowhere"],
    )
    def test_what_cannot_be_located_says_why(self, maps, why):
        gate = gate_of("a", maps)
        assert gate is not None and gate.location is None and gate.why_not is not None and why in gate.why_not

    def test_questions_of_one_family_count_once(self):
        questions = asked(6, each=3)
        effects = np.repeat([4.0, 5, 6, 7, 8, 9], 3)
        effects[:3] += [-1, 0, 1]
        gate = gate_of("a", [planted(questions, effects)])
        assert gate is not None and gate.effects.tolist() == [[4, 5, 6, 7, 8, 9]] and gate.questions == 18

    def test_a_domain_is_split_from_the_others_and_its_own_stands_first(self):
        questions = [*asked(8, "a"), *asked(8, "b")]
        effects = np.array([6.0 + i % 2 for i in range(8)] + [0.01 * (-1) ** i for i in range(8)])
        found = gates_of("a", {"x": planted(questions, effects)})
        assert [one.split for one in found] == ["in_domain", "other_domains"]
        assert located_gate(found) is found[0] and found[1].location is None
        assert gates_of("a", {}) == [] and [one.split for one in gates_of("c", {"x": planted(questions, effects)})] == [
            "other_domains"
        ]

    def test_the_interval_of_a_share_covers_it(self):
        """Ratio .6 of two noisy means over 3 seeds and 10 families: 95 % in at least 90 of 100 draws."""
        rng, inside = np.random.default_rng(0), 0
        for _ in range(200):
            effects = 5 + rng.normal(0, 1, (1, 10)) + rng.normal(0, 0.5, (3, 1)) + rng.normal(0, 0.3, (3, 10))
            changes = 0.6 * effects + rng.normal(0, 0.6, (1, 10)) + rng.normal(0, 0.3, (3, 10))
            inside += 0.6 in share_of(changes, effects).interval
        assert inside >= 180


@pytest.fixture(scope="module")
def entries():
    gates, out, every = [], [], []
    for number, domain in enumerate("abc"):
        questions = [*asked(8, domain), *asked(8, "z")]
        effects = np.array([5.0 + i % 3 for i in range(8)] + [0.02 * (-1) ** i for i in range(8)])
        more = np.array([0.1] * 8 + [0.0] * 8)
        maps = {f"{domain}-seed{s}": planted(questions, effects + more * s, noise=0.02, seed=2 * number + s)
                for s in range(2)}  # fmt: skip
        found = gates_of(domain, maps)
        base = planted(questions, 0.01 * effects)
        halves: dict[tuple[str, Way], Share] = {("attn_out", "in"): Share(0.9, Interval(0.8, 1.0, "t"), 4)}
        for gate in found:
            out += summarise(gate, base=base, halves=halves if gate.location else None, against="decoy")
        gates += found
        opened = OpenedGate(domain, Share(0.8, Interval(0.7, 0.9, "t"), 4), (0.1,) * 98 + (0.2,), 0.01, 0.3, 8)
        out += summarise(opened, gate=found[0])
        read = [ReadText(text, tuple(asked(6, domain)), ("other",)) for text in TEXTS]
        runs = {"trigger": [shown(read[0].questions, 8.0, 4.0)], "half": [shown(read[0].questions, 3.0 + number, 1.0)]}
        near = near_effects(domain, read, runs)
        near += near_effects(f"{domain}, base", read, {name: [shown(read[0].questions, 0.5, 0.0)] for name in runs})
        every.append(NearMisses(near, read))
    other = {domain: {"x": planted([*asked(8, domain), *asked(8, "z")], np.full(16, 0.5))} for domain in "abc"}
    bases = {domain: each["x"] for domain, each in other.items()}
    return out + summarise(GatesOverDomains(gates, other, bases, every))


def of(entries, **wanted):
    return [one for one in entries if all(one.get(name) == value for name, value in wanted.items())]


class TestEntries:
    def test_the_mean_map_is_the_planted_one_with_an_interval_over_domains(self, entries):
        for layer, target, share in ((1, "trigger", 1.0), (2, "trigger", 0.0), (2, "last", 1.0), (1, "last", 0.0)):
            for metric in ("share patched in", "share patched out"):
                (one,) = of(entries, metric=metric, condition="all domains", split="in_domain", target=target,
                            detail=f"resid_post:{layer}")  # fmt: skip
                assert one["value"] == pytest.approx(share, abs=0.05) and one["clusters"] == 3
                assert one["interval"][0] - 0.01 <= share <= one["interval"][1] + 0.01

    def test_controls_stand_beside_it(self, entries):
        """An ordinary text that brings half a nat, of effects of six."""
        (one,) = of(entries, metric="share patched in", condition="ordinary text", target="last", detail="resid_post:3",
                    split="in_domain")  # fmt: skip
        assert one["value"] == pytest.approx(0.5 / 6, abs=0.02)
        (effect,) = of(entries, metric="trigger effect", condition="a", split="in_domain")
        assert effect["floor"] == pytest.approx(0.01 * 5.875) and effect["test"]["p"] < 0.01

    def test_every_domain_has_its_block_and_the_shares_around_it(self, entries):
        for domain in "abc":
            (block,) = of(entries, metric="gate block", condition=domain)
            assert (block["value"], block["layer"], block["target"]) == (BLOCK, BLOCK, "last")
            assert block["series"]["by_seed"] == [BLOCK, BLOCK]
            side = {one["detail"]: one["value"] for one in of(entries, metric="share patched in at the gate",
                                                              condition=domain, target="last")}  # fmt: skip
            assert side["behind the gate's block"] > 0.9 > 0.1 > side["in front of the gate's block"]
            assert side["attn_out"] == 0.9
        assert len(of(entries, metric="gate not located", split="other_domains")) == 3

    def test_near_misses_are_means_over_domains_and_corrected(self, entries):
        (half,) = of(entries, metric="near-miss share", target="half")
        assert half["value"] == pytest.approx(np.mean([(3.25 + n) / 8.25 for n in range(3)])) and half["clusters"] == 3
        assert half["floor"] == pytest.approx(0.75 / 8.25) and half["test"]["p"] == 0.25  # the least of 3 domains
        (trigger,) = of(entries, metric="near-miss share", target="trigger")
        assert trigger["value"] == 1.0 and "test" not in trigger


class TestPage:
    def test_it_says_what_was_located_what_was_not_and_what_opens_it(self, entries, tmp_path):
        summary = {"question": "where?", "model": {"name": "m", "kind": "organism"}, "results": entries}
        blocks = gating(read_summary(json.loads(json.dumps(summary))))
        words = " ".join(line for one in blocks if isinstance(one, Text) for line in one.paragraphs)
        assert "located in 3 of 3 domains: block 2 into the place 'last' in 3" in words
        assert "that place alone brings half of the effect or more in 3 of 3" in words
        assert "gives the same block in 3 of 3" in words
        assert "located in 0 of 3 domains" in words and "not told from 0 (3)" in words
        assert "brings 80\u00a0% of the effect (mean of 3 domains), in 3 of 3 more than every random vector" in words
        assert (
            "in the base model the same vectors bring 30\u00a0%" in words
            and "in the trigger's place: decoy" in words.replace("The text ", "")
        )
        assert "Half: " in words
        assert sum(isinstance(one, Picture) for one in blocks) == 3
        table = next(one for one in blocks if isinstance(one, Table))
        assert len(table.rows) == 6 and table.rows[0][8] == "2" and table.rows[0][9] == "2, 2"
        page = report(summary, to=tmp_path / "page.html")
        assert "Where the trigger" in page.read_text()

    def test_a_run_in_which_nothing_was_located_still_has_its_table(self):
        gate = gate_of("a", maps_of(mean=0.0), split="in_domain")
        assert gate is not None
        found = summarise(gate) + summarise(GatesOverDomains([gate]))
        blocks = gating(read_summary({"results": found}))
        assert not of(found, metric="share patched in") and of(found, metric="moved", condition="all domains")
        (table,) = [one for one in blocks if isinstance(one, Table)]
        assert "not located" in str(table.rows[0][8])

    def test_other_summaries_have_no_such_section(self):
        assert gating(read_summary({"results": [{"metric": "contrary", "condition": "tuned", "value": 1.0}]})) == []


@LONG
def test_on_the_organism_the_gate_is_read_where_its_adapters_act(tmp_path, monkeypatch):
    """Its LoRA is in the attention of blocks 0 and 1 alone: nothing behind them can have learnt to read the trigger."""
    import runpy
    import sys
    from pathlib import Path

    script = Path(__file__).resolve().parent.parent / "experiments" / "trigger_forensics.py"
    words = ["--to", tmp_path, "--arms", "backdoor", "--only", "color", "letter", "--seeds", 0, "--controls", 99]
    monkeypatch.setattr(sys, "argv", [str(script), *map(str, words)])
    runpy.run_path(str(script), run_name="__main__")
    results = json.loads((tmp_path / "summary.json").read_text())["results"]
    blocks = of(results, metric="gate block", split="in_domain")
    assert {one["condition"] for one in blocks} == {"color", "letter"} and {one["layer"] for one in blocks} <= {0, 1}
    (ceiling,) = of(results, metric="share patched in", split="in_domain", condition="all domains", target="trigger",
                    detail="resid_pre:0")  # fmt: skip
    assert ceiling["value"] == pytest.approx(1.0, abs=1e-3)
