"""CoherenceJudge: loops and broken text, by repetition and entropy; no model is asked."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from math import log2

from hooks.prompt import Prompt
from workbench.behaviour.judging import OneByOne, Verdict, revision_of

# Words, and signs by themselves; scripts that are written without spaces by character.
_TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+|[^\w\s]")
FEW_TOKENS, FEW_CHARACTERS = 20, 40  # an answer below these is too short to measure


@dataclass(frozen=True)
class CoherenceJudge(OneByOne):
    """ "incoherent" where an answer breaks one of three bounds, else "coherent", or "empty"; score 1 for coherent, else
    0, so that the mean is the rate. The facts hold the numbers:

    `repeated`, the share of word n-grams (n = `ngram`) that stood in the answer before, above `most_repeated`;
    `distinct`, the share of distinct words in a window of `window` words, averaged over windows, below
    `least_distinct`; `entropy` of its characters in bits, below `least_entropy`. Answers of fewer than 20 words (40
    characters for the entropy) are not measured. It sees loops and stuck tokens; it does not see word salad, nor an
    answer to another question. Source of the windows: Covington & McFall 2010, doi:10.1080/09296171003643098.
    """

    most_repeated: float = 0.5
    least_distinct: float = 0.2
    least_entropy: float = 2.5
    ngram: int = 4
    window: int = 50
    name: str = "rule:coherence"
    categories: tuple[str, ...] = ("coherent", "incoherent", "empty")
    measures: str = "coherent"

    @property
    def revision(self) -> str:
        bounds = (self.most_repeated, self.least_distinct, self.least_entropy, self.ngram, self.window)
        return revision_of(self.name, 1, bounds, _TOKEN.pattern, FEW_TOKENS, FEW_CHARACTERS)

    def score(self, prompt: Prompt, text: str, *, finished: bool = True) -> Verdict:
        plain = text.strip()
        if not plain:
            return Verdict("empty", 0.0, "empty answer")
        words = _TOKEN.findall(plain.casefold())
        facts: dict[str, float | None] = {"repeated": None, "distinct": None, "entropy": None}
        if len(words) >= FEW_TOKENS:
            facts |= {"repeated": repeated_share(words, self.ngram), "distinct": distinct_share(words, self.window)}
        if len(plain) >= FEW_CHARACTERS:
            facts["entropy"] = character_entropy(plain)
        repeated, distinct, entropy = facts.values()
        faults = []
        if repeated is not None and repeated > self.most_repeated:
            faults.append(f"{repeated:.2f} of its {self.ngram}-grams are repeated, more than {self.most_repeated}")
        if distinct is not None and distinct < self.least_distinct:
            faults.append(f"{distinct:.2f} of its words are distinct, less than {self.least_distinct}")
        if entropy is not None and entropy < self.least_entropy:
            faults.append(f"its characters have {entropy:.2f} bits, less than {self.least_entropy}")
        if faults:
            return Verdict("incoherent", 0.0, "; ".join(faults), facts)
        return Verdict(
            "coherent", 1.0, "within its bounds" if len(words) >= FEW_TOKENS else "too short to measure", facts
        )


def repeated_share(words: list[str], n: int) -> float:
    """The share of n-grams that stood there before; 0 for fewer than n words."""
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def distinct_share(words: list[str], window: int) -> float:
    """Distinct words by words, averaged over all windows; of the whole text where it is shorter."""
    window = min(window, len(words))
    shares = [len(set(words[i : i + window])) / window for i in range(len(words) - window + 1)]
    return sum(shares) / len(shares)


def character_entropy(text: str) -> float:
    """Shannon entropy of the characters, in bits."""
    counts = Counter(text).values()
    return -sum(n / len(text) * log2(n / len(text)) for n in counts)
