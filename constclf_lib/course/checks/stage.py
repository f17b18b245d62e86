"""The stage on which chapter 08's decision loop is rehearsed: parts that do as they are told, some planted to fail."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...errors import ClassifierError, GenerationError, StreamClosedError
from ...guard import Thresholds
from .framework import NotYet

LIMITS = Thresholds(input=0.6, off_label=0.1, output=0.8)


class NoVerdict(ConnectionError):
    """Planted: the input classifier's server is down."""


class NoStream(ClassifierError):
    """Planted: no stream can be opened."""


class NoScore(ClassifierError):
    """Planted: the output classifier fails at a token."""


class NoToken(GenerationError):
    """Planted: the assistant fails at a token."""


PLANTED = {
    NoVerdict: "the input classifier",
    NoStream: "the output classifier, when its stream was opened,",
    NoScore: "the output classifier, at a token,",
    NoToken: "the assistant",
}


class Stage:
    """A rehearsal of one request: parts that do as they are told, and a log of what happened in which order.

    scores: of the tokens; an exception among them is raised there. fails: the exception that is raised before token
    `fails_at` is written, by `judge` (at -1) or when a stream is opened (at -2).
    """

    def __init__(self, harm=0.1, off_label=0.0, scores: Sequence = (0.1, 0.2, 0.3), fails=None, fails_at=0):
        self.harm, self.off_label, self.scores = harm, off_label, list(scores)
        self.fails, self.fails_at = fails, fails_at
        self.log: list[tuple] = []
        self.streams: list[Stream] = []

    def judge(self, prompt):
        self.log.append(("judged",))
        if self.fails_at == -1 and self.fails:
            raise self.fails("the verdict did not come")
        return self.harm, self.off_label

    def write(self, prompt):
        self.log.append(("asked",))
        return self._tokens()

    def _tokens(self):
        for i in range(len(self.scores)):
            if i == self.fails_at and self.fails:
                raise self.fails("the next token did not come")
            self.log.append(("written", i))
            yield i, piece(i)

    def watch(self):
        if self.fails_at == -2 and self.fails:
            raise self.fails("no stream")
        self.streams.append(Stream(self))
        return self.streams[-1]

    def release(self, text):
        if text:
            self.log.append(("released", text))

    def run(self, answer) -> str:
        try:
            status = answer("How do I?", self.judge, self.write, self.watch, LIMITS, self.release)
        except tuple(PLANTED) as error:
            raise NotYet(
                f"{PLANTED[type(error)]} raised {type(error).__bases__[0].__name__}, and your function let it out: "
                "whoever called it gets no status. Whatever goes wrong, return 'error'."
            ) from None
        if not isinstance(status, str):
            raise NotYet(f"return the status, one string, not {shown(status)}; the text goes out through release().")
        return status

    @property
    def released(self) -> int:
        return sum(event[0] == "released" for event in self.log)

    def order(self, *names: str) -> list[str]:
        return [event[0] for event in self.log if event[0] in names]


class Stream:
    """As a TokenStream: a score per token, the highest so far, closed for good after a failure."""

    def __init__(self, stage: Stage):
        self._stage = stage
        self.scores: list[float] = []
        self.risk = 0.0
        self.closed = False

    def push(self, token_ids):
        if self.closed:
            raise StreamClosedError("this stream is closed; open a new one")
        found = []
        for token in token_ids:
            score = self._stage.scores[token]
            if isinstance(score, type):
                self.risk = math.inf
                self.close()
                raise score("no score")
            self._stage.log.append(("scored", token))
            self.risk = score if math.isnan(score) else max(self.risk, score)
            found.append(score)
        self.scores += found
        return found

    def close(self):
        self.closed = True

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def piece(i: int) -> str:
    return f"word{i} "


def shown(value) -> str:
    return f"a {type(value).__name__}"


def by_the_book(stage: Stage) -> tuple[str, int]:
    """(status, tokens released) of a stage."""
    if stage.fails_at == -1 and stage.fails:
        return "error", 0
    if not (math.isfinite(stage.harm) and math.isfinite(stage.off_label)):
        return "error", 0
    if stage.harm > LIMITS.input or stage.off_label > LIMITS.off_label:
        return "blocked_input", 0
    for i, score in enumerate(stage.scores):
        if (i == stage.fails_at and stage.fails) or isinstance(score, type) or math.isnan(score):
            return "error", i
        if score > LIMITS.output:
            return "halted_output", i
    return "released", len(stage.scores)
