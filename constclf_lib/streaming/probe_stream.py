"""A probe's scores while the guarded model writes: hidden states in, probabilities out. Built in chapter 10.

The states of a token are there once the model has read it, which it does in order to write the next one: a probe costs
no forward pass, and a token waits for the next step before it goes out. Its logits are smoothed over tokens, by a
sliding mean (SWiM) or an exponential average, before they become probabilities.

Deliberately not here: the probe itself (models/probe.py), a second stage (cascade.py).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import ClassifierError, StreamClosedError
from ..models import LinearProbe
from .fail_closed import probability, within
from .stop_rules import RunningMax, SlidingMean


class ProbeScorer:
    """Opens streams on one probe. Holds no state of any stream.

    smoothing: averages logits: SlidingMean(probe.width) by default, or ExponentialAverage(alpha); each stream gets a
    fresh copy. rule: the stop rule on the probabilities, RunningMax() if None. step_timeout: as in StreamingScorer.
    `layers`: the hidden states that it wants of the guarded model.
    """

    def __init__(self, probe: LinearProbe, smoothing=None, rule=None, step_timeout: float | None = None):
        self.probe = probe.eval()
        self.smoothing = SlidingMean(probe.width) if smoothing is None else smoothing
        self.rule = RunningMax() if rule is None else rule
        self.step_timeout = step_timeout
        self.layers = probe.layers

    def check_assistant(self, model, tokenizer) -> None:
        """Raises ClassifierError unless `model` is the probe's own."""
        self.probe.check_model(model)

    def open(self, prompt: str | None = None) -> ProbeStream:
        """A new stream. The prompt is not read again: the states know it."""
        return ProbeStream(self)

    @torch.inference_mode()
    def score(self, states: Tensor) -> np.ndarray:
        """The probabilities [tokens] of a reply whose states [tokens, layers * hidden] are known, as a stream gives
        them. NaN is handed on.
        """
        smoothing = self.smoothing.fresh()
        logits = self.probe(states.to(self.probe.mean.device)).tolist()
        smooth = [smoothing.update(z) for z in logits]
        return np.array([probability(z) if math.isfinite(z) else math.nan for z in smooth])


class ProbeStream:
    """One reply. `scores`, `risk`, `closed` as in TokenStream; a failure closes it with risk infinity."""

    def __init__(self, scorer: ProbeScorer):
        self.scorer = scorer
        self.scores: list[float] = []
        self.risk = 0.0
        self.closed = False
        self._smoothing, self._rule = scorer.smoothing.fresh(), scorer.rule.fresh()

    def push(self, token_ids: Iterable[int], states: Tensor | None = None) -> list[float]:
        """One probability for each of the next tokens, from their states [tokens, layers * hidden].

        Raises StreamClosedError, ValueError for states that are missing or of another number or width, ClassifierError
        for a score that is no number, ClassifierTimeout.
        """
        if self.closed:
            raise StreamClosedError("this stream is closed; open a new one")
        try:
            ids = list(token_ids)
            width = self.scorer.probe.linear.in_features
            if states is None or states.shape != (len(ids), width):
                found = None if states is None else list(states.shape)
                raise ValueError(f"a probe needs states [{len(ids)}, {width}] of these tokens, not {found}")
            new = []
            for z in within(self.scorer.step_timeout, lambda: self._logits(states)):
                if not math.isfinite(z):
                    raise ClassifierError(f"the probe gave the logit {z}; nothing may be released on this score")
                new.append(probability(self._smoothing.update(z)))
                self.risk = max(self.risk, self._rule.update(new[-1]))
            self.scores += new
            return new
        except BaseException:
            self.fail()
            raise

    @torch.inference_mode()
    def _logits(self, states: Tensor) -> Sequence[float]:
        return self.scorer.probe(states.to(self.scorer.probe.mean.device)).tolist()

    def fail(self) -> None:
        """Closes the stream for good with a risk that is above every threshold."""
        self.risk = math.inf
        self.close()

    def close(self) -> None:
        """May be called twice."""
        self.closed = True

    def __enter__(self) -> ProbeStream:
        return self

    def __exit__(self, *_) -> None:
        self.close()
