"""litellm's generic guardrail endpoint: a proxy that asks before each request and every few chunks of a reply. Built in
chapter 08.

The proxy sends the text so far, again and again; only what is new is scored, on one stream per call id. Since it does
not say which call is the last, everything that has come is scored in every call, the unfinished last word included:
what the proxy lets out has been judged. (So here, unlike elsewhere, a reply's risk may depend on where the proxy cuts.)

Only text is judged: images and tool calls are blocked. Any failure is an error for the proxy, which by default lets
nothing pass (`unreachable_fallback: fail_closed`; do not set `fail_on_error: false`).

Deliberately not here: rewriting of text; several processes (a call's chunks must reach the same one).
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from ..guard import GuardedModel, GuardedUpstream, blocks
from ..streaming import StreamingScorer, crosses
from .protocol import ApiError

MOST_CALLS, SECONDS = 1024, 600.0  # calls that are remembered, and for how long


class Guardrail:
    """guard: whose classifiers and thresholds judge; its own model is not asked."""

    def __init__(self, guard: GuardedModel | GuardedUpstream):
        self.guard = guard
        classifier = getattr(guard.monitor, "classifier", None)
        self._scorer = StreamingScorer(classifier) if classifier is not None else None
        self._calls: OrderedDict[tuple[str, int], _Call] = OrderedDict()
        self._asked: OrderedDict[str, str] = OrderedDict()  # call id to request, for classifiers that read it
        self._looking = threading.Lock()

    def check(self, body: object) -> dict[str, Any]:
        """The answer to one call: {"action": "NONE"} or "BLOCKED" with a reason. Raises ApiError for a body that makes
        no sense or a classifier that fails.
        """
        given = body if isinstance(body, dict) else {}
        texts, kind = given.get("texts") or [], given.get("input_type")
        call = str(given.get("litellm_call_id") or "")[:128]
        if (
            kind not in ("request", "response")
            or not isinstance(texts, list)
            or not all(isinstance(t, str) for t in texts)
        ):
            raise ApiError(400, "input_type must be request or response, and texts a list of texts")
        if given.get("images") or given.get("tool_calls"):
            return {"action": "BLOCKED", "blocked_reason": "only text can be judged here"}
        try:
            bad = self._request(call, texts) if kind == "request" else self._response(call, texts)
        except Exception as error:
            raise ApiError(500, "a classifier failed", "server_error", code="classifier_failed") from error
        return {"action": "BLOCKED", "blocked_reason": self.guard.refusal_text} if bad else {"action": "NONE"}

    def _request(self, call: str, texts: Sequence[str]) -> bool:
        joined = " ".join(texts)
        if call:
            with self._looking:
                self._asked[call] = joined
                while len(self._asked) > MOST_CALLS:
                    self._asked.popitem(last=False)
        if self.guard.input_classifier is None or not texts:
            return False
        limits: Any = self.guard.thresholds
        scores = self.guard.input_classifier.score([*texts, joined] if len(texts) > 1 else list(texts))
        pairs = zip(scores.harm.tolist(), scores.off_label.tolist(), strict=True)
        return any(blocks(limits, harm, off_label) for harm, off_label in pairs)

    def _response(self, call: str, texts: Sequence[str]) -> bool:
        if self._scorer is None:
            return False
        limits: Any = self.guard.thresholds
        risks = [self._call(call, i).risk(text) for i, text in enumerate(texts)]
        return any(crosses(risk, limits.output) for risk in risks)

    def _call(self, call: str, index: int) -> _Call:
        prompt = self._asked.get(call)
        if not call:  # nothing to remember it by
            return _Call(self._scorer, prompt)
        with self._looking:
            now = time.monotonic()
            for key in [key for key, old in self._calls.items() if now - old.seen > SECONDS]:
                self._calls.pop(key).close()
            found = self._calls.pop((call, index), None) or _Call(self._scorer, prompt)
            self._calls[call, index] = found  # the youngest last
            found.seen = now
            while len(self._calls) > MOST_CALLS:
                self._calls.popitem(last=False)[1].close()
            return found


class _Call:
    """One reply that comes in pieces, each time from its beginning."""

    def __init__(self, scorer: Any, prompt: str | None):
        self.seen = 0.0
        self._scorer, self._prompt = scorer, prompt
        self._reading = threading.Lock()
        self._text, self._risk = "", 0.0
        self._stream: Any = None

    def risk(self, text: str) -> float:
        """The risk of everything up to now. A text that does not go on from the last one is read from its beginning;
        what was judged before still counts.
        """
        with self._reading:
            if self._stream is None or self._stream.closed or not text.startswith(self._text):
                self.close()
                self._text, self._stream = "", self._scorer.open_text(self._prompt)
            self._stream.push(text[len(self._text) :])
            self._stream.flush()
            self._text = text
            self._risk = max(self._risk, self._stream.risk)
            return self._risk

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
