"""Answers to the exercises of chapter 01, right and wrong."""

import random
import re
from fractions import Fraction

import numpy as np
import torch


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


def any_order(text):
    labels = list(re.finditer(r"^(PROMPT|COMPLETION):", text, re.M))
    if sorted(label.group(1) for label in labels) != ["COMPLETION", "PROMPT"]:
        raise ValueError
    ends = [labels[1].start(), len(text)]
    parts = {m.group(1): text[m.end() : end].strip() for m, end in zip(labels, ends, strict=True)}
    if not all(parts.values()):
        raise ValueError
    return parts["PROMPT"], parts["COMPLETION"]


def one_prompt(text):
    found = re.fullmatch(r".*?^PROMPT:(.+?)^COMPLETION:(.+)", text, re.M | re.S)
    if not found or len(re.findall(r"^PROMPT:", text, re.M)) != 1 or not all(part.strip() for part in found.groups()):
        raise ValueError
    return found.group(1).strip(), found.group(2).strip()


def one_completion(text):
    found = re.fullmatch(r".*^PROMPT:(.+?)^COMPLETION:(.+)", text, re.M | re.S)
    if not found or len(re.findall(r"^COMPLETION:", text, re.M)) != 1:
        raise ValueError
    if not all(part.strip() for part in found.groups()):
        raise ValueError
    return found.group(1).strip(), found.group(2).strip()


def one_line_will_do(text):
    labels = list(re.finditer(r"(?:^|(?<=[.?!] ))(PROMPT|COMPLETION):", text, re.M))
    if [label.group(1) for label in labels] != ["PROMPT", "COMPLETION"]:
        raise ValueError
    parts = text[labels[0].end() : labels[1].start()].strip(), text[labels[1].end() :].strip()
    if not all(parts):
        raise ValueError
    return parts


def drops_what_is_before(text):
    return read_answer(text[max(0, text.find("PROMPT:")) :])


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


def disguise(rows, rewrites, seed=0):
    rng, kinds = random.Random(seed), sorted(rewrites)
    found = [(prompt, restricted, "") for prompt, restricted in rows]
    for prompt, restricted in rows:
        kind = rng.choice(kinds)
        found.append((rewrites[kind](prompt), restricted, kind))
    return found


def only_restricted(rows, rewrites, seed=0):
    return [row for row in disguise(rows, rewrites, seed) if row[1] or not row[2]]


def disguise_is_the_crime(rows, rewrites, seed=0):
    return [(prompt, restricted or kind != "", kind) for prompt, restricted, kind in disguise(rows, rewrites, seed)]


def instead(rows, rewrites, seed=0):
    return [row for row in disguise(rows, rewrites, seed) if row[2]]


def by_turns(rows, rewrites, seed=0):
    kinds = sorted(rewrites)
    found = [(prompt, restricted, "") for prompt, restricted in rows]
    for i, (prompt, restricted) in enumerate(rows):
        kind = kinds[(i + seed) % len(kinds)]
        found.append((rewrites[kind](prompt), restricted, kind))
    return found


def every_kind(rows, rewrites, seed=0):
    found = [(prompt, restricted, "") for prompt, restricted in rows]
    return found + [(make(prompt), restricted, kind) for kind, make in rewrites.items() for prompt, restricted in rows]


def unseeded_disguise(rows, rewrites, seed=0):
    return disguise(rows, rewrites, random.random())


def one_draw(rows, rewrites, seed=0):
    return disguise(rows, rewrites, 0)


def other_odds(rows, rewrites, seed=0):
    rng, kinds = random.Random(seed), sorted(rewrites)
    found = [(prompt, restricted, "") for prompt, restricted in rows]
    for prompt, restricted in rows:
        odds = [2, 1, 2, 1] if restricted else [1, 2, 1, 2]
        kind = rng.choices(kinds, odds)[0]
        found.append((rewrites[kind](prompt), restricted, kind))
    return found


def restricted_twice(rows, rewrites, seed=0):
    return disguise(rows, rewrites, seed) + [(prompt, restricted, "") for prompt, restricted in rows if restricted]


def also_without_kind(rows, rewrites, seed=0):
    found = disguise(rows, rewrites, seed)
    return found + [(prompt, restricted, "") for prompt, restricted, kind in found if kind and restricted]


def never_the_last_kind(rows, rewrites, seed=0):
    return disguise(rows, {kind: rewrites[kind] for kind in sorted(rewrites)[:-1]}, seed)


def as_arrays(rows, rewrites, seed=0):
    return [
        [np.str_(prompt), np.bool_(restricted), kind] for prompt, restricted, kind in disguise(rows, rewrites, seed)
    ]


def runs(text, size=3):
    words = re.findall(r"\w+", text.lower())
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


def punctuation_counts(a, b):
    words = [text.lower().split() for text in (a, b)]
    first, second = ({tuple(w[i : i + 3]) for i in range(max(1, len(w) - 2))} for w in words)
    return len(first & second) / len(first | second)


def run_together(a, b):
    first, second = ({"".join(run) for run in runs(text)} for text in (a, b))
    return len(first & second) / len(first | second)


def punctuation_deleted(a, b):
    return overlap(*(re.sub(r"[^\w\s]", "", text) for text in (a, b)))


def short_is_nothing(a, b):
    words = [re.findall(r"\w+", text.lower()) for text in (a, b)]
    first, second = ({tuple(w[i : i + 3]) for i in range(len(w) - 2)} for w in words)
    return len(first & second) / max(1, len(first | second))


def split_by_group(groups, share, seed=0):
    names = sorted(set(groups))
    random.Random(seed).shuffle(names)
    held_out = set(names[: round(share * len(names))])
    return [group in held_out for group in groups]


def by_checksum(groups, share, seed=0):
    return np.array([random.Random(f"{seed}/{group}").random() < share for group in groups])


def order_of_a_set(groups, share, seed=0):
    names = list(set(groups))
    random.Random(seed).shuffle(names)
    held_out = set(names[: round(share * len(names))])
    return [group in held_out for group in groups]


def by_hash(groups, share, seed=0):
    return [hash(f"{seed}/{group}") % 1000 < 1000 * share for group in groups]


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
            "the labels in any order": any_order,
            "two completions": one_prompt,
            "two prompts": one_completion,
            "both labels on one line": one_line_will_do,
            "drops what is before the prompt": drops_what_is_before,
            "labels anywhere": label_anywhere,
            "keeps the labels": keeps_labels,
            "says nothing instead of refusing": empty_strings,
        },
    },
    "disguise": {
        "solution": disguise,
        "right": {"lists and numpy": as_arrays},
        "wrong": {
            "only the restricted ones": only_restricted,
            "the disguise is the crime": disguise_is_the_crime,
            "instead of the plain ones": instead,
            "kinds by turns": by_turns,
            "every kind": every_kind,
            "not repeatable": unseeded_disguise,
            "the seed is not used": one_draw,
            "other odds for the restricted": other_odds,
            "plain restricted rows twice": restricted_twice,
            "disguised rows also without a kind": also_without_kind,
            "one kind is never drawn": never_the_last_kind,
        },
    },
    "overlap": {
        "solution": overlap,
        "right": {
            "float32": lambda a, b: np.float32(overlap(a, b)),
            "tensor": lambda a, b: torch.tensor(overlap(a, b)),
            "punctuation deleted": punctuation_deleted,
            "fraction": lambda a, b: Fraction(len(runs(a) & runs(b)), len(runs(a) | runs(b))),
        },
        "wrong": {
            "bag of words": bag,
            "of the shorter": of_the_shorter,
            "twice over the sum": dice,
            "capitals count": case_matters,
            "punctuation counts": punctuation_counts,
            "words run together": run_together,
            "short texts share nothing": short_is_nothing,
            "not a number": lambda a, b: float("nan"),
            "both numbers": lambda a, b: (len(runs(a) & runs(b)), len(runs(a) | runs(b))),
        },
    },
    "split_by_group": {
        "solution": split_by_group,
        "right": {"a checksum per name": by_checksum},
        "wrong": {
            "the order of a set": order_of_a_set,
            "by hash": by_hash,
            "row by row": by_row,
            "the seed is not used": always_the_same,
            "not repeatable": unseeded,
            "one group": one_group,
            "names of groups": names_only,
        },
    },
}
