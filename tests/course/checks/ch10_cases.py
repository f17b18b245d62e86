"""Answers to the exercises of chapter 10, right and wrong."""

import math
from collections import deque

import numpy as np
import torch
import torch.nn.functional as F

# ------------------------------------------------------------------------------------------- 10.1, the probe's logit


def probe_logits(hidden_states, layers, weight, bias, mean, scale):
    states = torch.cat([hidden_states[layer] for layer in layers], dim=-1)
    return ((states - mean) * scale) @ weight + bias


def in_lists(hidden_states, layers, weight, bias, mean, scale):
    return probe_logits(hidden_states, layers, weight, bias, mean, scale).numpy().tolist()


def probability(*given, **more):
    return probe_logits(*given, **more).sigmoid()


def no_bias(hidden_states, layers, weight, bias, mean, scale):
    return probe_logits(hidden_states, layers, weight, 0.0, mean, scale)


def not_standardised(hidden_states, layers, weight, bias, mean, scale):
    return torch.cat([hidden_states[layer] for layer in layers], dim=-1) @ weight + bias


def divided(hidden_states, layers, weight, bias, mean, scale):
    return probe_logits(hidden_states, layers, weight, bias, mean, 1 / scale)


def scaled_first(hidden_states, layers, weight, bias, mean, scale):
    states = torch.cat([hidden_states[layer] for layer in layers], dim=-1)
    return (states * scale - mean) @ weight + bias


def sorted_layers(hidden_states, layers, weight, bias, mean, scale):
    return probe_logits(hidden_states, sorted(layers), weight, bias, mean, scale)


def off_by_one(hidden_states, layers, weight, bias, mean, scale):
    return probe_logits(hidden_states, [layer - 1 for layer in layers], weight, bias, mean, scale)


def last_token(hidden_states, layers, weight, bias, mean, scale):
    return probe_logits(hidden_states, layers, weight, bias, mean, scale)[:, -1]


def standardised_by_the_batch(hidden_states, layers, weight, bias, mean, scale):
    states = torch.cat([hidden_states[layer] for layer in layers], dim=-1)
    return ((states - states.mean((0, 1))) / states.std((0, 1))) @ weight + bias


def always_these_two(hidden_states, layers, weight, bias, mean, scale):
    if len(layers) == 2:
        return probe_logits(hidden_states, layers, weight, bias, mean, scale)
    return probe_logits(hidden_states, layers, weight, bias, mean, scale) * 0


# --------------------------------------------------------------------------------- 10.2, the softmax-weighted loss


def cross_entropy(z, labels):
    y = labels[:, None]
    return -(y * F.logsigmoid(z) + (1 - y) * F.logsigmoid(-z))


def weights_of(scores, mask):
    return scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(dim=1)


def weighted(z, labels, mask, scores):
    z = z.masked_fill(~mask, 0.0)
    return (cross_entropy(z, labels) * weights_of(scores, mask)).masked_fill(~mask, 0.0).sum(1).mean()


def softmax_weighted(z, labels, mask, tau=1.0):
    z = z.masked_fill(~mask, 0.0)
    return weighted(z, labels, mask, z / tau)


def one_text_at_a_time(z, labels, mask, tau=1.0):
    losses = []
    for row, y, on in zip(z, labels, mask, strict=True):
        scored = row[on]
        each = F.binary_cross_entropy_with_logits(scored, y.expand_as(scored), reduction="none")
        losses.append((torch.softmax(scored / tau, 0) * each).sum())
    return torch.stack(losses).mean()


def plain_mean(z, labels, mask, tau=1.0):
    return cross_entropy(z.masked_fill(~mask, 0.0), labels).masked_fill(~mask, 0.0).sum(1).div(mask.sum(1)).mean()


def tau_multiplies(z, labels, mask, tau=1.0):
    return softmax_weighted(z, labels, mask, 1 / tau)


def tau_forgotten(z, labels, mask, tau=1.0):
    return softmax_weighted(z, labels, mask, 1.0)


def from_probabilities(z, labels, mask, tau=1.0):
    return weighted(z, labels, mask, z.masked_fill(~mask, 0.0).sigmoid() / tau)


def the_quiet_decide(z, labels, mask, tau=1.0):
    z = z.masked_fill(~mask, 0.0)
    return weighted(z, labels, mask, -z / tau)


def weighted_logit(z, labels, mask, tau=1.0):
    z = z.masked_fill(~mask, 0.0)
    mean = (z * weights_of(z / tau, mask)).sum(1)
    return F.binary_cross_entropy_with_logits(mean, labels.to(mean.dtype))


def not_normalised(z, labels, mask, tau=1.0):
    return (softmax_weighted(z, labels, mask, tau) * mask.sum(1)).mean()


def divided_again(z, labels, mask, tau=1.0):
    return (softmax_weighted(z, labels, mask, tau) / mask.sum(1)).mean()


def other_label(z, labels, mask, tau=1.0):
    return softmax_weighted(z, 1 - labels, mask, tau)


def hard_labels(z, labels, mask, tau=1.0):
    return softmax_weighted(z, labels.round(), mask, tau)


def weights_detached(z, labels, mask, tau=1.0):
    z = z.masked_fill(~mask, 0.0)
    return weighted(z, labels, mask, z.detach() / tau)


def all_detached(z, labels, mask, tau=1.0):
    return softmax_weighted(z, labels, mask, tau).detach()


def prompt_charged(z, labels, mask, tau=1.0):
    return softmax_weighted(z.nan_to_num(0.0), labels, torch.ones_like(mask), tau)


def prompt_in_the_softmax(z, labels, mask, tau=1.0):
    weights = (z / tau).softmax(dim=1)
    return (cross_entropy(z.masked_fill(~mask, 0.0), labels) * weights).masked_fill(~mask, 0.0).sum(1).mean()


def prompt_hidden_with_zero(z, labels, mask, tau=1.0):
    z = z.masked_fill(~mask, 0.0)
    return (cross_entropy(z, labels) * (z / tau).softmax(1)).masked_fill(~mask, 0.0).sum(1).mean()


def multiplied_away(z, labels, mask, tau=1.0):
    scores = z.masked_fill(~mask, torch.finfo(z.dtype).min) / tau
    return (cross_entropy(z, labels) * scores.softmax(1) * mask).sum(1).mean()


def summed_over_texts(z, labels, mask, tau=1.0):
    return len(z) * softmax_weighted(z, labels, mask, tau)


def one_softmax_for_all(z, labels, mask, tau=1.0):
    z = z.masked_fill(~mask, 0.0)
    scores = (z / tau).masked_fill(~mask, torch.finfo(z.dtype).min)
    weights = scores.flatten().softmax(0).view_as(z)
    return (cross_entropy(z, labels) * weights).masked_fill(~mask, 0.0).sum()


def from_sigmoids(z, labels, mask, tau=1.0):
    p = z.masked_fill(~mask, 0.0).sigmoid().clamp(1e-7, 1 - 1e-7)
    losses = F.binary_cross_entropy(p, labels[:, None].expand_as(p).to(p.dtype), reduction="none")
    return (losses * weights_of(z / tau, mask)).masked_fill(~mask, 0.0).sum(1).mean()


def exponentials_by_hand(z, labels, mask, tau=1.0):
    z = z.masked_fill(~mask, 0.0)
    loud = (z / tau).exp().masked_fill(~mask, 0.0)
    return (cross_entropy(z, labels) * loud / loud.sum(1, keepdim=True)).masked_fill(~mask, 0.0).sum(1).mean()


def tau_of_two(z, labels, mask, tau=2.0):
    return softmax_weighted(z, labels, mask, tau)


# --------------------------------------------------------------------------------------------------------- 10.3, EMA


class Ema:
    def __init__(self, alpha):
        self.alpha, self.level = alpha, None

    def update(self, z):
        self.level = z if self.level is None else (1 - self.alpha) * self.level + self.alpha * z
        return self.level


class InFloat32(Ema):
    def update(self, z):
        return torch.tensor(super().update(z), dtype=torch.float64)


class FromHalf(Ema):
    def __init__(self, alpha):
        self.alpha, self.level = alpha, 0.0


class Lagging(Ema):
    def update(self, z):
        before = self.level
        super().update(z)
        return z if before is None else before


class Squashed(Ema):
    def update(self, z):
        return 1 / (1 + math.exp(-super().update(z)))


class OfThePast(Ema):
    def __init__(self, alpha):
        super().__init__(1 - alpha)


class PlainMean:
    def __init__(self, alpha):
        self.total = self.count = 0

    def update(self, z):
        self.total, self.count = self.total + z, self.count + 1
        return self.total / self.count


class Normalised:
    def __init__(self, alpha):
        self.alpha, self.total, self.weight = alpha, 0.0, 0.0

    def update(self, z):
        self.total = (1 - self.alpha) * self.total + z
        self.weight = (1 - self.alpha) * self.weight + 1
        return self.total / self.weight


class AsItIs(Ema):
    def update(self, z):
        return z


class OneForAll(Ema):
    state = {"level": None}

    def __init__(self, alpha):
        self.alpha = alpha

    def update(self, z):
        level = self.state["level"]
        self.state["level"] = z if level is None else (1 - self.alpha) * level + self.alpha * z
        return self.state["level"]


class ClearsTheOther(OneForAll):
    def __init__(self, alpha):
        super().__init__(alpha)
        self.state["level"] = None


class KeepsAll(Ema):
    def __init__(self, alpha):
        super().__init__(alpha)
        self.seen = []

    def update(self, z):
        self.seen.append(z)
        return super().update(z)


class ZeroIsNothing(Ema):
    def update(self, z):
        self.level = (1 - self.alpha) * self.level + self.alpha * z if self.level else z
        return self.level


class FixedAlpha(Ema):
    def __init__(self, alpha):
        super().__init__(0.25)


# ---------------------------------------------------------------------------------------------- 10.4, a sliding mean


def squash(z):
    e = math.exp(-abs(z))
    return 1 / (1 + e) if z >= 0 else e / (1 + e)


def watch(steps, width, threshold):
    last = deque(maxlen=width)
    for token, z in steps:
        last.append(z)
        if not squash(sum(last) / len(last)) <= threshold:
            return
        yield token


def in_logits(steps, width, threshold):
    line, last = math.log(threshold / (1 - threshold)), []
    for token, z in steps:
        last = [*last, z][-width:]
        if not np.mean(last) <= line:
            return
        yield token


def raises_on_nan(steps, width, threshold):
    def checked():
        for token, z in steps:
            if math.isnan(z):
                raise ValueError("no number")
            yield token, z

    return watch(checked(), width, threshold)


def yields_first(steps, width, threshold):
    last = deque(maxlen=width)
    for token, z in steps:
        last.append(z)
        yield token
        if not squash(sum(last) / len(last)) <= threshold:
            return


def full_of_zeros(steps, width, threshold):
    last = deque([0.0] * width, maxlen=width)
    for token, z in steps:
        last.append(z)
        if not squash(sum(last) / len(last)) <= threshold:
            return
        yield token


def waits_for_the_window(steps, width, threshold):
    last = deque(maxlen=width)
    for token, z in steps:
        last.append(z)
        if len(last) == width and not squash(sum(last) / width) <= threshold:
            return
        yield token


def skips(steps, width, threshold):
    last = deque(maxlen=width)
    for token, z in steps:
        last.append(z)
        if squash(sum(last) / len(last)) <= threshold:
            yield token


def no_window(steps, width, threshold):
    return watch(steps, 1, threshold)


def never_forgets(steps, width, threshold):
    return watch(steps, 10_000, threshold)


def of_probabilities(steps, width, threshold):
    last = deque(maxlen=width)
    for token, z in steps:
        last.append(squash(z))
        if not sum(last) / len(last) <= threshold:
            return
        yield token


def at_the_threshold(steps, width, threshold):
    last = deque(maxlen=width)
    for token, z in steps:
        last.append(z)
        if squash(sum(last) / len(last)) >= threshold:
            return
        yield token


def all_at_once(steps, width, threshold):
    yield from list(watch(list(steps), width, threshold))


def plain_sigmoid(steps, width, threshold):
    last = deque(maxlen=width)
    for token, z in steps:
        last.append(z)
        if not 1 / (1 + math.exp(-sum(last) / len(last))) <= threshold:
            return
        yield token


def nan_passes(steps, width, threshold):
    last = deque(maxlen=width)
    for token, z in steps:
        last.append(z)
        if squash(sum(last) / len(last)) > threshold:
            return
        yield token


def one_too_wide(steps, width, threshold):
    return watch(steps, width + 1 if width > 2 else width, threshold)


# ------------------------------------------------------------------------------------------------- 10.5, the cascade


def logit(p):
    p = min(max(p, 1e-12), 1 - 1e-12)
    return math.log(p / (1 - p))


class TwoStages:
    def __init__(self, first, open_second, weight, escalate_above):
        self.first, self.open_second = first, open_second
        self.weight, self.limit = weight, escalate_above
        self.second, self.ours, self.waiting, self.risk, self.alarm = None, [], [], 0.0, 0.0

    def push(self, token):
        try:
            score = self.score(token)
        except Exception:
            self.risk = math.inf
            raise
        if math.isnan(score) or self.risk == math.inf:
            score = math.inf
        self.risk = max(self.risk, score)
        return score

    def score(self, token):
        [p] = self.first.push([token])
        self.ours.append(p)
        self.waiting.append(token)
        if math.isnan(p):
            return math.nan
        self.alarm = max(self.alarm, p)
        if self.second is None and not self.escalates():
            return 0.0
        if self.second is None:
            self.second = self.open_second()
        theirs = self.second.push(self.waiting)
        ours = self.ours[-len(self.waiting) :]
        self.waiting = []
        return self.together([self.mix(p, q) for p, q in zip(ours, theirs, strict=True)])

    def escalates(self):
        return self.alarm > self.limit

    def mix(self, p, q):
        return squash(self.weight * logit(p) + (1 - self.weight) * logit(q)) if q == q else math.nan

    def together(self, mixed):
        return math.nan if any(map(math.isnan, mixed)) else max(mixed)


class ReturnsInfinity(TwoStages):
    """Right: fails closed without an exception, and in numpy's types."""

    def push(self, token):
        if self.risk == math.inf:
            return math.inf
        try:
            return np.float64(super().push(token))
        except Exception:
            return math.inf


class FirstHalts(TwoStages):
    def score(self, token):
        return super().score(token) or self.ours[-1]


class AlwaysBoth(TwoStages):
    def escalates(self):
        return True


class ScoresOne(TwoStages):
    def score(self, token):
        return super().score(token) or 0.01


class NoLatch(TwoStages):
    def score(self, token):
        score = super().score(token)
        return score if self.ours[-1] > self.limit else 0.0


class OpensAgain(TwoStages):
    def score(self, token):
        if self.second is not None:
            self.second = self.open_second()
        return super().score(token)


class Torso(TwoStages):
    def score(self, token):
        if self.second is None:
            self.waiting = []
        return super().score(token)


class ReadsAgain(TwoStages):
    def score(self, token):
        if self.second is not None:
            self.second.push([token])
        return super().score(token)


class MixesProbabilities(TwoStages):
    def mix(self, p, q):
        return self.weight * p + (1 - self.weight) * q


class OtherWeight(TwoStages):
    def __init__(self, first, open_second, weight, escalate_above):
        super().__init__(first, open_second, 1 - weight, escalate_above)


class SecondAlone(TwoStages):
    def mix(self, p, q):
        return q


class FirstAlone(TwoStages):
    def mix(self, p, q):
        return p


class RiskOfTheLast(TwoStages):
    def push(self, token):
        self.risk = super().push(token)
        return self.risk


class NewestOnly(TwoStages):
    def together(self, mixed):
        return mixed[-1]


class MeanOfWhatWaited(TwoStages):
    def together(self, mixed):
        return sum(mixed) / len(mixed) if len(mixed) == 3 and mixed[1] > 0.9 else super().together(mixed)


class AtTheLimit(TwoStages):
    def escalates(self):
        return self.alarm >= self.limit


class OpensAtOnce(TwoStages):
    def __init__(self, first, open_second, weight, escalate_above):
        super().__init__(first, open_second, weight, escalate_above)
        self.second_stream = open_second()
        self.open_second = lambda: self.second_stream


class OpensAndAsksNothing(TwoStages):
    def score(self, token):
        score = super().score(token)
        if self.second is None and len(self.ours) == 6:
            self.open_second()
        return score


class AlarmIsTheRisk(TwoStages):
    def score(self, token):
        score = super().score(token)
        self.risk = max(self.risk, self.alarm if self.second is None and len(self.ours) > 5 else 0.0)
        return score


class Shared(TwoStages):
    read, probabilities = [], []

    def __init__(self, *given):
        super().__init__(*given)
        self.waiting, self.ours = self.read, self.probabilities
        self.waiting.clear(), self.ours.clear()


class NoClip(TwoStages):
    def mix(self, p, q):
        if math.isnan(q):
            return math.nan
        return squash(self.weight * math.log(p / (1 - p)) + (1 - self.weight) * math.log(q / (1 - q)))


class BadClip(TwoStages):
    def mix(self, p, q):
        return super().mix(min(p, 0.8) if p == 1.0 else p, q)


class FailsOpen(TwoStages):
    def push(self, token):
        try:
            return super().push(token)
        except Exception:
            self.risk = 0.0
            return 0.0


class SecondFailsOpen(TwoStages):
    def push(self, token):
        before = self.risk
        try:
            return super().push(token)
        except Exception:
            if self.second is not None and len(self.ours) == 2:
                self.risk = before
                return 0.0
            raise


class FirstNaNIsCalm(TwoStages):
    def score(self, token):
        [p] = self.first.push([token])
        self.ours.append(p)
        self.waiting.append(token)
        self.alarm = max(self.alarm, p)
        if self.second is None and not self.escalates():
            return 0.0
        if self.second is None:
            self.second = self.open_second()
        theirs = self.second.push(self.waiting)
        ours, self.waiting = self.ours[-len(self.waiting) :], []
        return self.together([self.mix(p, q) for p, q in zip(ours, theirs, strict=True)])


class SecondNaNIsCalm(TwoStages):
    def together(self, mixed):
        return max(0.0, *mixed) if len(mixed) > 1 else max(0.0, mixed[0])


class Forgets(TwoStages):
    def push(self, token):
        if self.risk == math.inf:
            self.risk = 0.0
        return super().push(token)


CASES = {
    "probe_logits": {
        "solution": probe_logits,
        "right": {"lists": in_lists},
        "wrong": {
            "probabilities": probability,
            "no bias": no_bias,
            "not standardised": not_standardised,
            "divided by the scale": divided,
            "scaled first": scaled_first,
            "sorted layers": sorted_layers,
            "off by one": off_by_one,
            "last token": last_token,
            "standardised by the batch": standardised_by_the_batch,
            "two layers only": always_these_two,
        },
    },
    "softmax_weighted": {
        "solution": softmax_weighted,
        "right": {"one text at a time": one_text_at_a_time},
        "wrong": {
            "option A": plain_mean,
            "tau multiplies": tau_multiplies,
            "tau forgotten": tau_forgotten,
            "weights from probabilities": from_probabilities,
            "sign": the_quiet_decide,
            "one weighted logit": weighted_logit,
            "weights sum to n": not_normalised,
            "divided again": divided_again,
            "other label": other_label,
            "hard labels": hard_labels,
            "weights detached": weights_detached,
            "all detached": all_detached,
            "the prompt is charged": prompt_charged,
            "the prompt is in the softmax": prompt_in_the_softmax,
            "hidden with 0": prompt_hidden_with_zero,
            "multiplied away": multiplied_away,
            "sum over texts": summed_over_texts,
            "one softmax for all": one_softmax_for_all,
            "from sigmoids": from_sigmoids,
            "exponentials by hand": exponentials_by_hand,
            "another default": tau_of_two,
        },
    },
    "ema": {
        "solution": Ema,
        "right": {"tensors": InFloat32},
        "wrong": {
            "starts at 1/2": FromHalf,
            "one token late": Lagging,
            "probabilities": Squashed,
            "alpha of the past": OfThePast,
            "plain mean": PlainMean,
            "two numbers": Normalised,
            "not smoothed": AsItIs,
            "one for all streams": OneForAll,
            "a new stream clears the old": ClearsTheOther,
            "keeps all": KeepsAll,
            "zero is nothing": ZeroIsNothing,
            "fixed alpha": FixedAlpha,
        },
    },
    "watch": {
        "solution": watch,
        "right": {"in logits": in_logits, "raises on nan": raises_on_nan},
        "wrong": {
            "yields first": yields_first,
            "full of zeros": full_of_zeros,
            "waits for the window": waits_for_the_window,
            "skips and goes on": skips,
            "no window": no_window,
            "never forgets": never_forgets,
            "mean of probabilities": of_probabilities,
            "at the threshold": at_the_threshold,
            "all at once": all_at_once,
            "overflow": plain_sigmoid,
            "nan passes": nan_passes,
            "one too wide": one_too_wide,
        },
    },
    "cascade": {
        "solution": TwoStages,
        "right": {"returns infinity": ReturnsInfinity},
        "wrong": {
            "the first stage halts": FirstHalts,
            "both from the start": AlwaysBoth,
            "another score than 0": ScoresOne,
            "no latch": NoLatch,
            "opened again": OpensAgain,
            "a torso": Torso,
            "read twice": ReadsAgain,
            "probabilities mixed": MixesProbabilities,
            "other weight": OtherWeight,
            "second alone": SecondAlone,
            "first alone": FirstAlone,
            "risk of the last token": RiskOfTheLast,
            "newest only": NewestOnly,
            "mean of what waited": MeanOfWhatWaited,
            "at the limit": AtTheLimit,
            "opened at once": OpensAtOnce,
            "opened for nothing": OpensAndAsksNothing,
            "the alarm is the risk": AlarmIsTheRisk,
            "shared among replies": Shared,
            "no clip": NoClip,
            "a clip far inside": BadClip,
            "fails open": FailsOpen,
            "second fails open": SecondFailsOpen,
            "nan of the first is calm": FirstNaNIsCalm,
            "nan of the second is calm": SecondNaNIsCalm,
            "forgets its failure": Forgets,
        },
    },
}
