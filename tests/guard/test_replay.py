"""Replaying stored replies decides as the guarded model does."""

import math
from types import SimpleNamespace

import pytest
import torch

from constclf_lib.generation import generate_replies
from constclf_lib.guard import MODES, replay, score_prompts
from constclf_lib.streaming import score_completions


def written(*tokens, error=""):
    return {"tokens": list(tokens), "ids": list(range(len(tokens))), "text": "".join(tokens), "error": error}


def test_replay_modes_and_edges():
    thresholds = SimpleNamespace(input=0.5, off_label=0.25, output=0.7)
    replies = [written("a", "b", "c")] * 3 + [written(error="no reply")] + [written("a", "b", "c")] * 3
    nan = math.nan
    inputs = SimpleNamespace(
        harm=torch.tensor([0.5, 0.6, 0.1, 0.1, nan, 0.1, 0.1]),
        off_label=torch.tensor([0.25, 0.0, 0.3, 0.0, 0.0, 0.0, 0.0]),
    )
    scores = [[0.1, 0.7, 0.7], [0.1, 0.1, 0.1], [0, 0, 0], [], [0, 0, 0], [0.1, 0.9, nan], [0.1, nan, 0.9]]
    run = lambda mode: replay(["p"] * 7, replies, inputs, scores, thresholds, mode)  # noqa: E731
    got = {mode: [(r["status"], r["released_text"], r["halt_index"]) for r in run(mode)] for mode in MODES}
    full, error = ("released", "abc", None), ("error", "", None)
    assert got["none"] == [full] * 3 + [error] + [full] * 3
    blocked = ("blocked_input", "", None)
    assert got["input"] == [full, blocked, blocked, error, error, full, full]
    tail = [("halted_output", "a", 1), ("error", "a", None)]
    assert got["output"] == [full, full, full, error, full, *tail]  # 0.7 is not above 0.7
    assert got["both"] == [full, blocked, blocked, error, error, *tail]
    for result, reply in zip(run("both"), replies, strict=True):
        assert result["released_text"] + result["withheld_text"] == reply["text"]
    with pytest.raises(ValueError, match="mode"):
        run("all")
    with pytest.raises(ValueError, match="own ids"):
        replay(["p"], replies[:1], inputs, [[0.1]], thresholds)


def test_replay_equals_the_guarded_model(lab):
    guard = pytest.importorskip("constclf_lib.guard")
    replies = generate_replies(lab.assistant, lab.tokenizer, lab.prompts, 12, max_note_tokens=96)
    inputs, tokens = (
        score_prompts(lab.input, lab.prompts),
        score_completions(lab.output, [r["ids"] for r in replies]),
    )
    highest = sorted(float(s.max()) for s in tokens if len(s))
    off_label = float(inputs.off_label.max()) + 1
    cuts = [(2.0, 2.0), (2.0, highest[len(highest) // 2]), (2.0, -1.0), (float(inputs.harm.median()), highest[0])]
    seen = set()
    for cut_in, cut_out in cuts:
        thresholds = guard.Thresholds(input=cut_in, off_label=off_label, output=cut_out)
        model = guard.GuardedModel(lab.assistant, lab.tokenizer, lab.input, lab.output, thresholds)
        for result in replay(lab.prompts, replies, inputs, tokens, thresholds):
            live = model.reply(result["prompt"], max_new_tokens=12)
            seen.add(live.status)
            for name in ("status", "released_text", "halt_index"):
                assert getattr(live, name) == result[name], (name, live, result)
    assert seen >= {"released", "blocked_input", "halted_output"}
