"""Replies in batches equal one at a time."""

import torch

from constclf_lib.generation import generate_replies, pieces
from constclf_lib.prompts import ASSISTANT, CHAT_TOKENS, chat_id, prompt_ids
from constclf_lib.tokenization import decode_text, text_ids


@torch.no_grad()
def alone(lab, prompt, max_new_tokens, max_note_tokens):
    """The reply to one prompt without cache, padding or batch: (note ids, reply ids, error or not)."""
    control = {chat_id(lab.tokenizer, token) for token in CHAT_TOKENS}
    ids, parts, now = prompt_ids(lab.tokenizer, prompt), ([], []), 0
    while len(parts[now]) < (max_note_tokens, max_new_tokens)[now]:
        token = int(lab.assistant(torch.tensor([ids])).logits[0, -1].argmax())
        ids.append(token)
        if now == 0 and token == chat_id(lab.tokenizer, ASSISTANT):
            now = 1
        elif token in control:
            break
        else:
            parts[now].append(token)
    return parts[0], parts[1], now == 0


def test_batched_generation_equals_one_at_a_time(lab):
    batched = generate_replies(lab.assistant, lab.tokenizer, lab.prompts, 12, batch_size=4, max_note_tokens=30)
    seen = set()
    for prompt, reply in zip(lab.prompts, batched, strict=True):
        note, ids, failed = alone(lab, prompt, 12, 30)
        assert (reply["ids"], bool(reply["error"])) == (ids, failed)
        assert reply["note"] == decode_text(lab.tokenizer, note)
        assert "".join(reply["tokens"]) == reply["text"] and len(reply["tokens"]) == len(ids)
        lengths = [len(prompt_ids(lab.tokenizer, prompt)), len(note), len(ids)]
        assert [reply[f"{part}_tokens"] for part in ("prompt", "note", "completion")] == lengths
        seen.add((failed, len(ids)))
    assert len(seen) >= 3, f"the fixture should meet replies of several lengths, not {seen}"


def test_generation_samples_by_seed_and_names_what_does_not_fit(lab):
    draw = lambda seed: generate_replies(lab.assistant, lab.tokenizer, lab.prompts, 8, temperature=1.0, seed=seed)  # noqa: E731
    assert draw(0) == draw(0) != draw(7)
    long = generate_replies(lab.assistant, lab.tokenizer, ["ash " * 200, "hm"], 4)
    assert "context" in long[0]["error"] and long[0]["text"] == "" and "context" not in long[1]["error"]


def test_pieces_are_whole_characters(lab):
    text = "brûlée 🦊 and 🦊🦊"
    ids = text_ids(lab.tokenizer, text)
    assert len(ids) > len(text) // 2 and "".join(pieces(lab.tokenizer, ids)) == text
    assert all("\ufffd" not in "".join(pieces(lab.tokenizer, ids)[:cut]) for cut in range(len(ids)))
