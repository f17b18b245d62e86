"""/v1/moderations: what the bodyguards say about a text, in the form of OpenAI's moderation API. Built in chapter 08.

Two categories: `request` (the input classifier, on the text as a prompt) and `reply` (the output classifier, on the
text as a reply); each where that classifier is there. Flagged is strictly above the threshold, as everywhere.

Deliberately not here: OpenAI's own categories, which these classifiers know nothing of.
"""

from __future__ import annotations

import secrets
from typing import Any

from ..guard import GuardedModel, GuardedUpstream
from ..streaming import crosses
from .protocol import ApiError

MOST = 64  # texts in one request


def moderate(guard: GuardedModel | GuardedUpstream, body: object, model: str, with_scores: bool = False) -> dict:
    """The answer to a request body. with_scores=False shows 0 and 1 in place of scores. Raises ApiError for a body that
    makes no sense or a classifier that fails.
    """
    given = body.get("input") if isinstance(body, dict) else None
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not 0 < len(texts) <= MOST or not all(isinstance(text, str) for text in texts):
        raise ApiError(400, f"input must be a text, or a list of at most {MOST}", param="input")
    limits: Any = guard.thresholds
    results: list[dict[str, Any]] = [{"flagged": False, "categories": {}, "category_scores": {}} for _ in texts]
    try:
        if guard.input_classifier is not None:
            scores = guard.input_classifier.score(texts)
            for result, harm, off in zip(results, scores.harm.tolist(), scores.off_label.tolist(), strict=True):
                _note(
                    result, "request", harm, crosses(harm, limits.input) or crosses(off, limits.off_label), with_scores
                )
        if guard.monitor is not None and hasattr(guard.monitor, "open_text") and not _reads_prompt(guard):
            for result, text in zip(results, texts, strict=True):
                with guard.monitor.open_text() as stream:
                    stream.push(text)
                    stream.flush()
                    _note(result, "reply", stream.risk, crosses(stream.risk, limits.output), with_scores)
    except Exception as error:
        raise ApiError(500, "a classifier failed", "server_error", code="classifier_failed") from error
    return {"id": f"modr-{secrets.token_hex(12)}", "model": model, "results": results}


def _reads_prompt(guard) -> bool:
    return getattr(guard.monitor.classifier, "reads_prompt", False)


def _note(result: dict, category: str, score: float, flagged: bool, with_scores: bool) -> None:
    result["categories"][category] = flagged
    result["category_scores"][category] = score if with_scores else float(flagged)
    result["flagged"] = result["flagged"] or flagged
