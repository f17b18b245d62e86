"""What the endpoint knows again of its own replies: every form that a client may keep, and nothing else."""

from constclf_lib.guard import Reply, history_after
from constclf_lib.prompts import conversation, texts_to_judge
from constclf_lib.serve.released import Released

ALL = ("system", "user", "assistant")


def chat(text, role="assistant"):
    return [
        {"role": "user", "content": "a"},
        {"role": role, "content": text},
        {"role": "user", "content": "b"},
    ]


def known(released, text, role="assistant"):
    return text not in texts_to_judge(released.mark(chat(text, role)), ALL)


def test_what_a_client_keeps_of_a_halted_reply_is_known_in_each_form():
    released, reply = (
        Released(),
        Reply(status="halted_output", released_text="One two", withheld_text=" three", refusal="No."),
    )
    released.add(reply)
    for text in ("One two", reply.shown_text, history_after(reply), " One two\n"):
        assert known(released, text)
    for text in ("One two three", "One", "", "three"):
        assert not known(released, text)


def test_no_other_role_is_vouched_for_and_no_mark_of_a_client_survives():
    released = Released()
    released.add(Reply(status="released", released_text="One"))
    assert not known(released, "One", "user") and not known(released, "One", "system")
    marked = [{**message, "released": True} for message in chat("x", "system")]
    assert texts_to_judge(marked, ALL) == ["a", "x", "b", "a x b"]
    assert all(set(message) == {"role", "content"} for message in conversation(released.mark(chat("One"))))


def test_the_oldest_is_forgotten_first():
    released = Released(most=2)
    for text in "abcdefg":
        released.add(Reply(status="released", released_text=text))
    assert known(released, "g") and not known(released, "a")
    assert len(released._known) <= 6
