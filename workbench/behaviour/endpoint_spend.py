"""Budget: money is reserved before a request is sent, and settled when its reply says what it cost."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from workbench.behaviour.endpoint_reply import Reply


@dataclass(frozen=True)
class Prices:
    """What a million tokens cost, in the currency of the spend cap."""

    prompt: float
    completion: float

    def __post_init__(self) -> None:
        if self.prompt < 0 or self.completion < 0:
            raise ValueError(f"{self}: expected prices of a million tokens, none below 0.")

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6

    def cost(self, reply: Reply, bound: float) -> float:
        """By the server's own count; the bound where it gives none."""
        if reply.prompt_tokens is None or reply.completion_tokens is None:
            return bound
        return self.of(reply.prompt_tokens, reply.completion_tokens)


class Budget:
    """At most `cap` is spent; several judges may share one. `spent` is what replies cost, `at_risk` the upper bound of
    requests that failed in a way that the server may charge for (a timeout): both count against the cap."""

    def __init__(self, cap: float | None) -> None:
        if cap is not None and not cap >= 0:
            raise ValueError(f"spend_cap={cap}: expected an amount of at least 0, or None for no cap.")
        self.cap = cap
        self.spent = self.at_risk = self._reserved = 0.0
        self.closed = False
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        cap = "no cap" if self.cap is None else f"cap {self.cap:g}"
        return f"Budget({cap}, spent {self.spent:.4g}, at risk {self.at_risk:.4g}{', closed' if self.closed else ''})"

    def reserve(self, bound: float) -> bool | None:
        """True: the request may be sent. None: perhaps, once requests that are under way have been settled. False: it
        does not fit, and the budget is closed for good - smaller requests that would still fit are those of short
        answers, and scoring these alone would bias the result."""
        with self._lock:
            if self.closed:
                return False
            if self.cap is None or self.spent + self.at_risk + self._reserved + bound <= self.cap * (1 + 1e-12):
                self._reserved += bound
                return True
            if self._reserved > 0 and self.spent + self.at_risk + bound <= self.cap:
                return None
            self.closed = True
            return False

    def settle(self, bound: float, *, cost: float = 0.0, at_risk: bool = False) -> None:
        """Ends a reservation: by its cost, or with its bound at risk."""
        with self._lock:
            self._reserved = max(0.0, self._reserved - bound)
            self.spent += cost
            self.at_risk += bound if at_risk else 0.0
