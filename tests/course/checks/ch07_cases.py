"""Answers to the exercises of chapter 07, right and wrong."""

from collections import deque


def positions_read(n, every):
    return sum(range(every, n + 1, every)) + (n if n % every else 0)


def no_tail(n, every):
    return sum(range(every, n + 1, every))


def tail_twice(n, every):
    return sum(range(every, n + 1, every)) + n


def with_cache(n, every):
    return n


def looks(n, every):
    return -(-n // every)


def every_token(n, every):
    return n * (n + 1) // 2


def run(text_filter, deltas):
    return "".join([text_filter.push(delta) for delta in deltas]) + text_filter.end()


def bad_splits(make, text):
    whole = run(make(), [text])
    return [i for i in range(len(text) + 1) if run(make(), [text[:i], text[i:]]) != whole]


def first_bad_split(make, text):
    return next(iter(bad_splits(make, text)), -1)


def last_bad(make, text):
    return next(reversed(bad_splits(make, text)), -1)


def only_the_middle(make, text):
    i = len(text) // 2
    return -1 if run(make(), [text[:i], text[i:]]) == run(make(), [text]) else i


def against_the_text(make, text):
    return next((i for i in range(len(text) + 1) if run(make(), [text[:i], text[i:]]) != text), -1)


def without_end(make, text):
    def out(deltas):
        text_filter = make()
        return "".join([text_filter.push(delta) for delta in deltas])

    return next((i for i in range(len(text) + 1) if out([text[:i], text[i:]]) != out([text])), -1)


def one_filter(make, text):
    """Forgets that a filter remembers: what one run left behind comes out in the next."""
    text_filter = make()
    whole = run(text_filter, [text])
    return next((i for i in range(len(text) + 1) if run(text_filter, [text[:i], text[i:]]) != whole), -1)


def no_empty_deltas(make, text):
    whole = run(make(), [text])
    return next((i for i in range(1, len(text)) if run(make(), [text[:i], text[i:]]) != whole), -1)


def says_whether(make, text):
    return bool(bad_splits(make, text))


def guarded(tokens, stream, threshold):
    for token in tokens:
        stream.push([token])
        if stream.risk > threshold:
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


class KOfLast:
    def __init__(self, k, n):
        self.k, self.last = k, deque(maxlen=n)

    def update(self, p):
        self.last.append(p)
        return self.value(sorted(self.last, reverse=True)) if len(self.last) >= self.k else 0.0

    def value(self, ordered):
        return ordered[self.k - 1]


class NeverForgets(KOfLast):
    def __init__(self, k, n):
        self.k, self.last = k, []


class Mean(KOfLast):
    def value(self, ordered):
        return sum(ordered[: self.k]) / self.k


class AllOfThem(KOfLast):
    def value(self, ordered):
        return ordered[-1]


class TheHighest(KOfLast):
    def value(self, ordered):
        return ordered[0]


class WaitsForN(KOfLast):
    def update(self, p):
        self.last.append(p)
        return sorted(self.last, reverse=True)[self.k - 1] if len(self.last) == self.last.maxlen else 0.0


class NoWait(KOfLast):
    def update(self, p):
        self.last.append(p)
        return sorted(self.last, reverse=True)[min(self.k, len(self.last)) - 1]


class Shared:
    """State in a dictionary of the class: one deque for every rule of the same n."""

    windows = {}

    def __init__(self, k, n):
        self.k, self.n = k, n

    def update(self, p):
        last = self.windows.setdefault(self.n, deque(maxlen=self.n))
        last.append(p)
        return sorted(last, reverse=True)[self.k - 1] if len(last) >= self.k else 0.0


CASES = {
    "positions_read": {
        "solution": positions_read,
        "wrong": {
            "never reads the last tokens": no_tail,
            "reads the end twice": tail_twice,
            "thinks of the cache": with_cache,
            "counts the looks": looks,
            "looks after every token": every_token,
        },
    },
    "first_bad_split": {
        "solution": first_bad_split,
        "wrong": {
            "returns the last": last_bad,
            "tries the middle only": only_the_middle,
            "compares with the text": against_the_text,
            "never calls end": without_end,
            "one filter for all runs": one_filter,
            "leaves out empty deltas": no_empty_deltas,
            "says whether, not where": says_whether,
        },
    },
    "guarded": {
        "solution": guarded,
        "wrong": {
            "releases first": release_first,
            "goes on after a halt": skips_the_token,
            "halts at the threshold": at_the_threshold,
            "acts on the score": by_the_score,
            "collects before it releases": all_at_once,
            "swallows the failure": fails_open,
        },
    },
    "k_of_last": {
        "solution": KOfLast,
        "wrong": {
            "never forgets": NeverForgets,
            "averages": Mean,
            "asks for all of the last n": AllOfThem,
            "takes the highest": TheHighest,
            "waits for n": WaitsForN,
            "does not wait for k": NoWait,
            "shares its state": Shared,
        },
    },
}
