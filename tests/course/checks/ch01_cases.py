"""Answers to the exercises of chapter 01, right and wrong."""

import random
import re


def read_answer(text):
    labels = list(re.finditer(r"^(PROMPT|COMPLETION):", text, re.M))
    if [label.group(1) for label in labels] != ["PROMPT", "COMPLETION"]:
        raise ValueError("not exactly one PROMPT: and one COMPLETION:")
    prompt = text[labels[0].end() : labels[1].start()].strip()
    completion = text[labels[1].end() :].strip()
    if not prompt or not completion:
        raise ValueError("an empty part")
    return prompt, completion


def by_lines(text):
    lines = {}
    for line in text.splitlines():
        label, _, rest = line.partition(":")
        lines[label] = rest.strip()
    if not lines.get("PROMPT") or not lines.get("COMPLETION"):
        raise ValueError
    return lines["PROMPT"], lines["COMPLETION"]


def first_of_two(text):
    found = re.search(r"^PROMPT:(.*?)^COMPLETION:(.*?)(?=^PROMPT:|\Z)", text, re.M | re.S)
    if not found or not all(part.strip() for part in found.groups()):
        raise ValueError
    return found.group(1).strip(), found.group(2).strip()


def empty_is_fine(text):
    found = re.fullmatch(r".*?^PROMPT:(.*)^COMPLETION:(.*)", text, re.M | re.S)
    if not found or text.count("COMPLETION:") != 1:
        raise ValueError
    return found.group(1).strip(), found.group(2).strip()


def must_begin(text):
    found = re.fullmatch(r"PROMPT:(.+)\nCOMPLETION:(.+)", text.strip(), re.S)
    if not found:
        raise ValueError
    return found.group(1).strip(), found.group(2).strip()


def label_anywhere(text):
    if text.count("PROMPT:") != 1 or text.count("COMPLETION:") != 1:
        raise ValueError
    prompt, completion = text.split("PROMPT:")[1].split("COMPLETION:")
    if not prompt.strip() or not completion.strip():
        raise ValueError
    return prompt.strip(), completion.strip()


def keeps_labels(text):
    return tuple(line for line in text.splitlines() if line.startswith(("PROMPT", "COMPLETION")))[:2]


def empty_strings(text):
    try:
        return read_answer(text)
    except ValueError:
        return "", ""


def runs(text, size=3):
    words = text.lower().split()
    return {tuple(words[i : i + size]) for i in range(max(1, len(words) - size + 1))}


def overlap(a, b):
    first, second = runs(a), runs(b)
    return len(first & second) / len(first | second)


def bag(a, b):
    first, second = set(a.lower().split()), set(b.lower().split())
    return len(first & second) / len(first | second)


def of_the_shorter(a, b):
    first, second = runs(a), runs(b)
    return len(first & second) / min(len(first), len(second))


def dice(a, b):
    first, second = runs(a), runs(b)
    return 2 * len(first & second) / (len(first) + len(second))


def case_matters(a, b):
    words = [text.split() for text in (a, b)]
    first, second = ({tuple(w[i : i + 3]) for i in range(max(1, len(w) - 2))} for w in words)
    return len(first & second) / len(first | second)


def short_is_nothing(a, b):
    words = [text.lower().split() for text in (a, b)]
    first, second = ({tuple(w[i : i + 3]) for i in range(len(w) - 2)} for w in words)
    return len(first & second) / max(1, len(first | second))


def split_by_group(groups, share, seed=0):
    names = sorted(set(groups))
    random.Random(seed).shuffle(names)
    held_out = set(names[: round(share * len(names))])
    return [group in held_out for group in groups]


def by_row(groups, share, seed=0):
    rng = random.Random(seed)
    return [rng.random() < share for _ in groups]


def always_the_same(groups, share, seed=0):
    names = sorted(set(groups))
    return [group in names[: round(share * len(names))] for group in groups]


def unseeded(groups, share, seed=0):
    names = sorted(set(groups))
    random.shuffle(names)
    return [group in names[: round(share * len(names))] for group in groups]


def one_group(groups, share, seed=0):
    name = random.Random(seed).choice(sorted(set(groups)))
    return [group == name for group in groups]


def names_only(groups, share, seed=0):
    names = sorted(set(groups))
    return random.Random(seed).sample(names, round(share * len(names)))


CASES = {
    "read_answer": {
        "solution": read_answer,
        "wrong": {
            "line by line": by_lines,
            "takes the first of two": first_of_two,
            "empty parts pass": empty_is_fine,
            "no word before": must_begin,
            "labels anywhere": label_anywhere,
            "keeps the labels": keeps_labels,
            "says nothing instead of refusing": empty_strings,
        },
    },
    "overlap": {
        "solution": overlap,
        "wrong": {
            "bag of words": bag,
            "of the shorter": of_the_shorter,
            "twice over the sum": dice,
            "capitals count": case_matters,
            "short texts share nothing": short_is_nothing,
        },
    },
    "split_by_group": {
        "solution": split_by_group,
        "wrong": {
            "row by row": by_row,
            "the seed is not used": always_the_same,
            "not repeatable": unseeded,
            "one group": one_group,
            "names of groups": names_only,
        },
    },
}
