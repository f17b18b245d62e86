"""What it costs to judge a conversation's turns alone and joined: python -m benchmarks.joined_turns [--conversations N]

Harmless conversations out of the lab's test split (requests that nobody restricted or disguised, with the replies that
belong to them), each request used once per table. They go as docs/deployment.md advises: at every turn the
request with its history is judged; where it is blocked, the turn is left out of what follows. Three policies judge the
same requests: the last turn alone (the cheapest), every user turn alone and joined (`GuardedModel`, and `constclf
serve` where it has released the replies itself), every message of any role alone and joined (`constclf serve` with a
history that it does not know). The first turn is the control: there all three read the same text.

Writes benchmarks/results/joined_turns.json and prints the table of docs/threat-model.md. Refusals by the input
classifier only; what joining catches is chapter 08's.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from constclf_lib import data_path
from constclf_lib.evaluation import paired_rate_difference, rate_of
from constclf_lib.guard import GuardedModel, Thresholds, blocks, score_prompts
from constclf_lib.lab import load_split
from constclf_lib.prompts import ROLES, texts_to_judge
from constclf_lib.recipes.sealed import model_checksums

RESULTS = Path(__file__).resolve().parent / "results" / "joined_turns.json"
POLICIES = {
    "last turn alone": (),
    "user turns, alone and joined": ("user",),
    "all messages, alone and joined": ROLES,
}


class Judge:
    """Which texts are blocked; each is scored once."""

    def __init__(self, input_classifier, limits: Thresholds):
        self.input_classifier, self.limits = input_classifier, limits
        self._blocked: dict[str, bool] = {}

    def read(self, texts: Iterable[str]) -> None:
        new = sorted(set(texts) - set(self._blocked), key=len)
        scores = score_prompts(self.input_classifier, new)
        for text, harm, off_label in zip(new, scores.harm.tolist(), scores.off_label.tolist(), strict=True):
            self._blocked[text] = blocks(self.limits, harm, off_label)

    def any(self, texts: list[str]) -> bool:
        return any(self._blocked[text] for text in texts)


def conversations(count: int, turns: int) -> list[list[tuple[str, str]]]:
    """`count` times `turns` pairs (request, reply). Raises ValueError if the split has too few."""
    frame = load_split("test")
    frame = frame[~frame.restricted & ~frame.harmful & (frame.attack == "")].drop_duplicates("prompt")
    if len(frame) < count * turns:
        raise ValueError(f"{len(frame)} harmless requests do not give {count} conversations of {turns}")
    drawn = frame.sample(count * turns, random_state=0)
    pairs = list(zip(drawn.prompt, drawn.completion, strict=True))
    return [pairs[i : i + turns] for i in range(0, len(pairs), turns)]


def judged(judge: Judge, chats: list[list[tuple[str, str]]], roles: tuple[str, ...]) -> np.ndarray:
    """Which requests are blocked, [conversations, turns]. roles: none judges the last turn alone."""
    found = np.zeros((len(chats), len(chats[0])), bool)
    histories: list[list[dict[str, str]]] = [[] for _ in chats]
    for turn in range(len(chats[0])):
        asked = [{"role": "user", "content": chat[turn][0]} for chat in chats]
        pairs = zip(histories, asked, strict=True)
        texts = [texts_to_judge([*old, new] if roles else [new], roles or ("user",)) for old, new in pairs]
        judge.read(text for of in texts for text in of)
        for i, of in enumerate(texts):
            found[i, turn] = judge.any(of)
            if not found[i, turn]:
                histories[i] += [asked[i], {"role": "assistant", "content": chats[i][turn][1]}]
    return found


def measure(count: int, turns: int) -> dict:
    """Rates at every turn, and what each policy adds to the first, paired over the conversations."""
    guard = GuardedModel.from_lab()
    assert guard.thresholds is not None
    judge, chats = Judge(guard.input_classifier, guard.thresholds), conversations(count, turns)
    blocked = {name: judged(judge, chats, roles) for name, roles in POLICIES.items()}
    outcomes = {str(turn + 1): {name: of[:, turn] for name, of in blocked.items()} for turn in range(turns)}
    outcomes["any"] = {name: np.asarray(of.any(axis=1)) for name, of in blocked.items()}
    return {
        "conversations": count, "split": "test", "seed": 0, "turns": turns,
        "rows": [{"turn": turn, **compared(of)} for turn, of in outcomes.items()],
        "models": model_checksums(data_path()),
    }  # fmt: skip


def compared(outcomes: dict[str, np.ndarray]) -> dict:
    """Shares that are blocked, and what each policy adds to the first."""
    first, *others = POLICIES
    added = {}
    for name in others:
        mean, *limits, n = paired_rate_difference(outcomes[first], outcomes[name])
        added[name] = {"value": round(mean, 4), "interval": [round(limit, 4) for limit in limits], "n": n}
    return {"blocked": {name: rate_of(of).stored() for name, of in outcomes.items()}, "added": added}


def table(results: dict) -> str:
    """The table of docs/threat-model.md."""

    def shown(found: dict, sign: str = "") -> str:
        low, high = found["interval"]
        return f"{found['value']:{sign}.1%} ({low:{sign}.1%} to {high:{sign}.1%})"

    names = list(POLICIES)
    lines = [
        f"| request | {names[0]} | {names[1]}: added | {names[2]}: added |",
        "|---|---|---|---|",
    ]
    for row in results["rows"]:
        added = " | ".join(shown(row["added"][name], "+") for name in names[1:])
        turn = f"any of the {results['turns']}" if row["turn"] == "any" else row["turn"]
        lines.append(f"| {turn} | {shown(row['blocked'][names[0]])} | {added} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=600)
    parser.add_argument("--turns", type=int, default=4)
    parser.add_argument("--json", type=Path, default=RESULTS)
    options = parser.parse_args()
    results = measure(options.conversations, options.turns)
    options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
