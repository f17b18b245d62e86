"""Answers to the exercises of chapter 07, right and wrong."""

import math
import re

import numpy as np
import torch

from constclf_lib.evaluation import calibrate_threshold


class Stream:
    def __init__(self, classifier):
        self.classifier, self.cache, self.risk = classifier, None, 0.0

    @torch.inference_mode()
    def push(self, ids):
        new = torch.tensor([ids], device=self.classifier.device)
        output = self.read(new)
        scores = output.harm_logits[0].sigmoid().tolist()
        self.judge(scores)
        return scores

    def read(self, new):
        output = self.classifier(new, past_key_values=self.cache, use_cache=True, with_lm_logits=False)
        self.cache = output.past_key_values
        return output

    def judge(self, scores):
        for p in scores:
            self.risk = math.inf if math.isnan(p) else max(self.risk, p)


class InTensors(Stream):
    """Right, and in other types: an array of float32 and a tensor."""

    def push(self, ids):
        return np.asarray(super().push(ids), np.float32)

    def judge(self, scores):
        self.risk = torch.tensor([self.risk, *scores]).nan_to_num(math.inf, posinf=math.inf).max()


class Raises(Stream):
    """Right: what is no number is raised, and the risk tells it to whoever swallows the exception."""

    def judge(self, scores):
        if any(map(math.isnan, scores)):
            self.risk = math.inf
            raise ValueError("no number")
        super().judge(scores)


class NoMemory(Stream):
    def read(self, new):
        return self.classifier(new)


class ReadsAgain(Stream):
    def push(self, ids):
        self.ids = [*getattr(self, "ids", []), *ids]
        return super().push(self.ids)[-len(ids) :]

    def read(self, new):
        return self.classifier(new)


class IgnoresItsCache(ReadsAgain):
    def read(self, new):
        output = self.classifier(new, use_cache=True)
        self.cache = output.past_key_values
        return output


class Logits(Stream):
    def push(self, ids):
        scores = super().push(ids)
        return [math.log(p / (1 - p)) for p in scores]


class LastScore(Stream):
    def judge(self, scores):
        self.risk = scores[-1]


class LastOfChunk(Stream):
    def judge(self, scores):
        super().judge(scores[-1:])


class OneNumber(Stream):
    def push(self, ids):
        return super().push(ids)[-1]


class SharedCache(Stream):
    state = {}

    def __init__(self, classifier):
        super().__init__(classifier)
        self.state["cache"] = None

    def read(self, new):
        output = self.classifier(new, past_key_values=self.state["cache"], use_cache=True)
        self.state["cache"] = output.past_key_values
        return output


class HidesNaN(Stream):
    def judge(self, scores):
        self.risk = max(self.risk, *scores)


class ForgetsNaN(Stream):
    def judge(self, scores):
        self.risk = math.inf if any(map(math.isnan, scores)) else max(scores + [self.risk] * math.isfinite(self.risk))


class Pieces:
    def __init__(self, longest):
        self.longest, self.held = longest, ""

    def push(self, text):
        self.held, ready = self.held + text, []
        while (cut := self.next_cut()) is not None:
            ready.append(self.held[:cut])
            self.held = self.held[cut:]
        return ready

    def next_cut(self):
        seen = self.held[: self.longest + 1]
        found = re.search(r"(?<!^)\s(?=\S)", seen)
        return found.start() if found else self.longest if len(seen) > self.longest else None

    def end(self):
        rest, self.held = self.held, ""
        return rest


class SpaceBehind(Pieces):
    def next_cut(self):
        found = re.search(r"\s(?=\S)", self.held)
        return found.end() if found else None


class EverySpace(Pieces):
    def next_cut(self):
        found = re.search(r"(?<!^)\s", self.held)
        return found.start() if found else None


class NoLongest(Pieces):
    def next_cut(self):
        found = re.search(r"(?<!^)\s(?=\S)", self.held)
        return found.start() if found else None


class TooEager(Pieces):
    """Cuts at the longest before it has seen the character behind."""

    def next_cut(self):
        found = re.search(r"(?<!^)\s(?=\S)", self.held[: self.longest])
        return found.start() if found else self.longest if len(self.held) >= self.longest else None


class EachDelta(Pieces):
    """Takes the end of a delta for the end of a word."""

    def push(self, text):
        return [*super().push(text), *([self.end()] if self.held else [])]


class AllAtTheEnd(Pieces):
    def push(self, text):
        self.held += text
        return []


class LosesTheRest(Pieces):
    def end(self):
        return ""


class OneText(Pieces):
    """Returns a text, not a list."""

    def push(self, text):
        return "".join(super().push(text))


class SharedHeld(Pieces):
    texts = {"held": ""}

    def __init__(self, longest):
        self.longest = longest

    @property
    def held(self):
        return self.texts["held"]

    @held.setter
    def held(self, text):
        self.texts["held"] = text


def release(tokens, stream, threshold):
    for token in tokens:
        stream.push([token])
        if not stream.risk <= threshold:
            return
        yield token


def release_first(tokens, stream, threshold):
    for token in tokens:
        yield token
        stream.push([token])
        if stream.risk > threshold:
            return


def skips_the_token(tokens, stream, threshold):
    for token in tokens:
        if stream.push([token])[0] > threshold:
            continue
        yield token


def at_the_threshold(tokens, stream, threshold):
    for token in tokens:
        stream.push([token])
        if stream.risk >= threshold:
            return
        yield token


def by_the_score(tokens, stream, threshold):
    for token in tokens:
        if stream.push([token])[0] > threshold:
            return
        yield token


def all_at_once(tokens, stream, threshold):
    tokens, out = list(tokens), []
    for token in tokens:
        stream.push([token])
        if stream.risk > threshold:
            break
        out.append(token)
    return iter(out)


def fails_open(tokens, stream, threshold):
    for token in tokens:
        try:
            stream.push([token])
        except RuntimeError:
            pass
        if stream.risk > threshold:
            return
        yield token


def opens_on_nan(tokens, stream, threshold):
    for token in tokens:
        stream.push([token])
        if stream.risk > threshold:
            return
        yield token


def raises_on_nan(tokens, stream, threshold):
    for token in opens_on_nan(tokens, stream, threshold):
        if math.isnan(stream.risk):
            raise ValueError("no number")
        yield token


def windows(count, room):
    found = [(0, 0, min(count, room))]
    while found[-1][2] < count:
        new = found[-1][2]
        start = new - room // 2
        found.append((start, new, min(count, start + room)))
    return found


def as_arrays(count, room):
    return np.array(windows(count, room))


def stops_reading(count, room):
    return windows(count, room)[:1]


def starts_afresh(count, room):
    return [(start, start, min(count, start + room)) for start in range(0, count, room)]


def too_long(count, room):
    return [(start, new, min(count, new + room)) for start, new, _ in windows(count, room)]


def scored_twice(count, room):
    return [(start, start, end) for start, _, end in windows(count, room)]


def one_too_many(count, room):
    return windows(count, room) + ([(count, count, count)] if count % room == 0 else [])


def without_end(count, room):
    return [window[:2] for window in windows(count, room)]


def lowest_threshold(scores, lengths, edges, max_fpr):
    found, low = [], -1
    for edge in edges:
        inside = scores[(lengths > low) & (lengths <= edge)]
        found += [calibrate_threshold(inside, max_fpr)] if len(inside) else []
        low = edge
    return max(found)


def of_lists(scores, lengths, edges, max_fpr):
    """Right, in plain Python: from above, the last score that keeps every budget."""
    scores, lengths, lows = scores.tolist(), lengths.tolist(), (-1, *edges)
    groups = [
        [p for p, n in zip(scores, lengths, strict=True) if low < n <= edge]
        for low, edge in zip(lows, edges, strict=False)
    ]
    keeps = [
        t for t in sorted(scores) if all(sum(p > t for p in group) <= max_fpr * len(group) + 1e-9 for group in groups)
    ]
    return torch.tensor(keeps[0], dtype=torch.float64)


def pooled(scores, lengths, edges, max_fpr):
    return calibrate_threshold(scores, max_fpr)


def each(scores, lengths, edges, max_fpr):
    groups = [scores[(lengths > low) & (lengths <= edge)] for low, edge in zip((-1, *edges), edges, strict=False)]
    return [calibrate_threshold(group, max_fpr) for group in groups if len(group)]


def easiest(*given):
    return min(each(*given))


def mean_of_all(*given):
    return float(np.mean(each(*given)))


def without_lower_bound(scores, lengths, edges, max_fpr):
    return max(calibrate_threshold(scores[lengths <= edge], max_fpr) for edge in edges)


def highest(scores, lengths, edges, max_fpr):
    return scores.max()


def always_one_percent(scores, lengths, edges, max_fpr):
    return lowest_threshold(scores, lengths, edges, 0.01)


def nan_of_nobody(scores, lengths, edges, max_fpr):
    return float("nan")


CASES = {
    "stream": {
        "solution": Stream,
        "right": {"InTensors": InTensors, "Raises": Raises},
        "wrong": {
            "hands no cache on": NoMemory,
            "reads all again": ReadsAgain,
            "fills a cache and ignores it": IgnoresItsCache,
            "returns logits": Logits,
            "risk is the last score": LastScore,
            "looks at the end of a push": LastOfChunk,
            "one number for a push": OneNumber,
            "shares its cache": SharedCache,
            "max hides a NaN": HidesNaN,
            "forgets a NaN": ForgetsNaN,
        },
    },
    "pieces": {
        "solution": Pieces,
        "wrong": {
            "space at the end": SpaceBehind,
            "cuts at every space": EverySpace,
            "waits for a space for ever": NoLongest,
            "cuts before it has seen enough": TooEager,
            "takes a delta for a word": EachDelta,
            "holds everything": AllAtTheEnd,
            "loses what is held": LosesTheRest,
            "returns a text": OneText,
            "shares what is held": SharedHeld,
        },
    },
    "release": {
        "solution": release,
        "right": {"raises on nan": raises_on_nan},
        "wrong": {
            "releases first": release_first,
            "goes on after a halt": skips_the_token,
            "halts at the threshold": at_the_threshold,
            "acts on the score": by_the_score,
            "collects before it releases": all_at_once,
            "swallows the failure": fails_open,
            "opens on NaN": opens_on_nan,
        },
    },
    "windows": {
        "solution": windows,
        "right": {"as arrays": as_arrays},
        "wrong": {
            "stops reading": stops_reading,
            "starts afresh": starts_afresh,
            "windows too long": too_long,
            "scores twice": scored_twice,
            "one window too many": one_too_many,
            "leaves out the end": without_end,
        },
    },
    "lowest_threshold": {
        "solution": lowest_threshold,
        "right": {"of lists": of_lists},
        "wrong": {
            "all lengths together": pooled,
            "the easiest bucket": easiest,
            "the mean of the buckets": mean_of_all,
            "buckets without a lower bound": without_lower_bound,
            "the highest score": highest,
            "always one percent": always_one_percent,
            "NaN": nan_of_nobody,
        },
    },
}
