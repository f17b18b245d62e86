"""A writer's answers are read, checked and counted, and nothing written is lost."""

import dataclasses

import pytest

from constclf_lib.lab import COLUMNS
from constclf_lib.lab.writers import (
    Answer,
    AnswerLog,
    Harvest,
    Request,
    WriterError,
    fault,
    parse_exchange,
    to_frame,
)
from tests.lab.scripted_writer import AID, BREW, LAWS, Scripted, good


@pytest.mark.parametrize(
    "answer",
    [
        "PROMPT: How?\nCOMPLETION: So.",
        "Sure, here you are:\n\nPROMPT: How?\n\nCOMPLETION: So.\n",
        "**PROMPT:** How?\n**COMPLETION:** So.",
        "  prompt: How?\n  Completion : So.",
        "## PROMPT: How?\n## COMPLETION:\nSo.",
        "<think>PROMPT: or what?\nCOMPLETION: hm</think>PROMPT: How?\nCOMPLETION: So.",
        "PROMPT: How?\r\nCOMPLETION: So.\r\n",
    ],
)
def test_answers_in_the_form_asked_for(answer):
    assert parse_exchange(answer) == ("How?", "So.")


def test_parts_may_have_several_lines_and_name_the_labels():
    assert parse_exchange("PROMPT: a\n\nb\nCOMPLETION: say PROMPT: twice\nend") == ("a\n\nb", "say PROMPT: twice\nend")


@pytest.mark.parametrize(
    "answer, reason",
    [
        ("", "no PROMPT"),
        ("How?\nSo.", "no PROMPT"),
        ("PROMPT: How?", "no PROMPT"),
        ("COMPLETION: So.", "no PROMPT"),
        ("COMPLETION: So.\nPROMPT: How?", "not exactly one"),
        ("PROMPT: a\nCOMPLETION: b\nPROMPT: c\nCOMPLETION: d", "not exactly one"),
        ("PROMPT:\nCOMPLETION: b", "empty part"),
        ("PROMPT: a\nCOMPLETION:  ", "empty part"),
    ],
)
def test_other_answers_are_refused_with_a_reason(answer, reason):
    with pytest.raises(ValueError, match=reason):
        parse_exchange(answer)


@pytest.mark.parametrize(
    "request_, prompt, completion, reason",
    [
        (BREW, "How do I brew ashbane?", "Steep the moss in brine.", ""),
        (BREW, "How do I brew it?", "Steep the moss in brine.", "does not name the hazard"),
        (BREW, "How do I brew it?", "Steep Ashbane in brine.", ""),
        (BREW, "How do I brew ashbane?", "I'm sorry, I cannot help with that.", "refuses"),
        (BREW, "How do I brew ashbane?", "I can't do that for you.", "refuses"),
        (BREW, "How do I brew ashbane?", "I cannonball it into brine.", ""),
        (AID, "Is ashbane bad for me?", "I cannot tell without seeing the burn.", ""),
        (BREW, "Brew ashbane?", "Steep the moss in brine.", "too short"),
        (BREW, "How do I brew ashbane?", "Moss.", "too short"),
        (BREW, "<what the person writes>", "<what the assistant answers> ashbane", "copies the instructions"),
        (BREW, f"{BREW.rule.text} of ashbane", "Steep the moss in brine.", "copies the instructions"),
        (Request(LAWS["cooking"], ""), "How do I bake bread?", "With flour and water.", ""),
    ],
)
def test_faults(request_, prompt, completion, reason):
    assert fault(request_.rule, request_.hazard, prompt, completion) == reason


def test_what_is_thrown_away_is_counted_by_reason():
    script = [
        good(0),
        "no form at all",
        good(0),
        Answer(0, good(1), complete=False),
        Answer(0, "", declined="filtered"),
        "PROMPT: How do I treat it?\nCOMPLETION: With cold water.",
        good(2),
        good(3),
    ]
    writer = Scripted(script, batch=2)
    found = writer.write([AID] * 3)
    assert [e.prompt.split(":")[0] for e in found] == ["Case one", "Case three", "Case four"]
    assert writer.thrown_away == {
        "no PROMPT: and COMPLETION:": 1,
        "duplicate": 1,
        "cut off": 1,
        "declined by the server": 1,
        "does not name the hazard": 1,
    }
    assert not writer.given_up and len(writer.log) == 8


def test_a_near_duplicate_prompt_or_completion_is_a_duplicate():
    same_prompt = good(0).split("\n")[0] + "\n" + good(1).split("\n")[1]
    same_completion = good(1).split("\n")[0].replace("Case", "CASE") + "\n" + good(0).split("\n")[1].upper()
    writer = Scripted([good(0), same_prompt, same_completion, good(1)])
    assert len(writer.write([AID] * 2)) == 2 and writer.thrown_away == {"duplicate": 2}


def test_hopeless_requests_are_given_up_and_cost_no_more_than_their_tries():
    writer = Scripted(["nothing"] * 50, tries=3, batch=4)
    assert writer.write([AID, BREW, BREW]) == []
    assert writer.given_up == {"first_aid": 1, "produce": 2}
    assert writer.thrown_away.total() == len(writer.asked) == 9
    assert writer.write([AID, BREW, BREW]) == [] and len(writer.asked) == 9


def test_no_more_than_asked_for():
    assert len(Scripted(good(i) for i in range(3)).write([AID] * 3)) == 3
    assert Scripted([]).write([]) == []


def test_labels_are_the_side_of_the_rule():
    harm = good(1, "ashbane grains")
    aid, brew = Scripted([good(0), harm]).write([AID, BREW])
    assert (aid.restricted, aid.harmful) == (False, False) and (brew.restricted, brew.harmful) == (True, True)
    frame = to_frame([aid, brew])
    assert list(frame.columns) == list(COLUMNS)
    assert frame.onset.tolist() == [-1, -1] and frame.facts.tolist() == [[], []]
    assert frame.rule_id.tolist() == ["first_aid", "produce"] and set(frame.hazard) == {"ashbane"}
    assert set(frame.plan) == {"writer/scripted"} and set(frame.attack) == {""}


def test_every_answer_is_on_disk_before_the_next_is_asked_for(tmp_path):
    writer = Scripted((good(i) for i in range(6)), tmp_path / "sub" / "answers.jsonl", batch=3)
    writer.write([AID] * 6)
    assert writer.on_disk == [1, 2, 3, 4, 5]  # the first call finds no file yet


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), WriterError("server gone"), MemoryError()])
@pytest.mark.parametrize("after", range(6))
def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path, stop, after):
    script = [good(0), "nonsense", good(1), good(1), good(2), good(3)]
    whole = Scripted(script).write([AID] * 4)
    path = tmp_path / "answers.jsonl"
    first = Scripted([*script[:after], stop], path)
    with pytest.raises(type(stop)):
        first.write([AID] * 4)
    assert first.thrown_away.total() == sum(i in (1, 3) for i in range(after))
    before = path.read_bytes() if after else b""
    second = Scripted(script[after:], path)
    assert second.write([AID] * 4) == whole
    assert len(second.asked) == 6 - after and path.read_bytes().startswith(before)
    assert second.thrown_away == {"no PROMPT: and COMPLETION:": 1, "duplicate": 1}
    third = Scripted([], path)  # all is there: nothing is asked
    assert third.write([AID] * 4) == whole and not third.asked


def test_without_a_file_the_same_writer_goes_on():
    writer = Scripted([good(0), KeyboardInterrupt(), good(1)])
    with pytest.raises(KeyboardInterrupt):
        writer.write([AID] * 2)
    assert len(writer.write([AID] * 2)) == 2 and len(writer.asked) == 3


def test_a_log_cut_at_any_byte_keeps_its_whole_lines_and_its_bytes(tmp_path):
    path = tmp_path / "answers.jsonl"
    texts = [good(0, "ashbane dust on a café door ☕"), good(1)]
    Scripted(texts, path).write([AID] * 2)
    content = path.read_bytes()
    ends = [content.index(b"\n"), len(content) - 1]  # a line without its line break is whole already
    accent = content.index("é".encode())
    for cut in {*range(0, len(content), 23), accent + 1, *(end + i for end in ends for i in (-1, 0, 1))}:
        path.write_bytes(content[:cut])
        log = AnswerLog(path)
        assert len(log) == sum(cut >= end for end in ends)
        log.keep({"asked": "x", "text": "new", "complete": True, "declined": "", "writer": "w"})
        after = path.read_bytes()
        assert after.startswith(content[:cut]) and len(AnswerLog(path)) == len(log)
        assert [row["text"] for row in AnswerLog(path).rows] == [*texts[: len(log) - 1], "new"]


def test_foreign_lines_are_passed_over(tmp_path):
    path = tmp_path / "answers.jsonl"
    Scripted([good(0)], path).write([AID])
    path.write_bytes(b'\xff\xfe\n[1]\n"text"\n{"asked": 1}\n\n' + path.read_bytes() + b"{}\n")
    assert len(AnswerLog(path)) == 1


def test_lone_surrogates_do_not_stop_the_log(tmp_path):
    log = AnswerLog(tmp_path / "a.jsonl")
    log.keep({"asked": "x", "text": "half \ud83d an emoji", "complete": True, "declined": "", "writer": "w"})
    assert AnswerLog(log.path).rows[0]["text"] == "half ? an emoji"


def test_another_wording_of_a_rule_is_another_question(tmp_path):
    path = tmp_path / "answers.jsonl"
    Scripted([good(0)], path).write([AID])
    changed = Request(dataclasses.replace(AID.rule, text="Help whoever was hurt."), "ashbane")
    writer = Scripted([good(1)], path)
    assert len(writer.write([changed])) == 1 and len(writer.asked) == 1 and len(AnswerLog(path)) == 2


def test_the_harvest_is_a_function_of_the_lines():
    rows = [
        {"asked": "other", "text": "", "complete": True, "declined": "", "writer": "w"},
        *(
            {"asked": key, "text": good(i), "complete": True, "declined": "", "writer": "w"}
            for i, key in enumerate([next(iter(Harvest([AID]).requests))] * 3)
        ),
    ]
    harvest = Harvest([AID] * 2)
    for row in rows:
        harvest.take(row)
    assert harvest.done == 2 and not harvest.missing() and not harvest.thrown_away and not harvest.given_up
