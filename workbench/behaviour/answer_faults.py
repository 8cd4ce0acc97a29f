"""What is wrong with an answer as a text: nothing was said, or the same was said over and over."""

from __future__ import annotations

GRAM = 4  # words
REPEATED = 0.5  # share of an answer's 4-grams that are copies of another, from which it counts as repeating itself
WORDS = 24  # shorter answers are not called repeating
LETTERS = 20  # of a word, on average: longer, and the text has no spaces between its words


def faults_of(text: str) -> dict[str, bool]:
    """`empty`: nothing but space; `repeated`: at least half of its 4-grams of words occur before in it."""
    return {"empty": not text.strip(), "repeated": repeated_share(text) >= REPEATED}


def repeated_share(text: str) -> float:
    """The share of 4-grams of words that repeat an earlier one; 0 for texts of fewer than 24 words. Texts without
    spaces between words are read letter by letter."""
    words = text.split()
    if len(text) > LETTERS * len(words):
        words = list(text)
    if len(words) < WORDS:
        return 0.0
    grams = [tuple(words[i : i + GRAM]) for i in range(len(words) - GRAM + 1)]
    return 1 - len(set(grams)) / len(grams)
