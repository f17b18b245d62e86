"""The page for people, clicked in a real browser: risk that rises word by word, halts, keys, what a chat remembers."""

import re

import pytest

from tests.serve.browser import CHROMIUM, browser
from tests.serve.servers import FORBIDDEN, KEY, get, process, tiny_guard, until
from tests.tiny_models import tiny_lab

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no chromium here; on Debian: apt-get install chromium")
REFUSED = "Failed to load resource: the server responded with a status of 401"
LAST = "document.querySelector('.turn:last-child')"


@pytest.fixture(scope="module")
def tab():
    with process("tiny", "PORT") as server, browser() as found:
        found.open(server.address)
        found.says = KEY
        yield found


def say(tab, text, enter=False):
    """Types and sends a message, and waits for the end of what comes back: {reply, note, status, html}."""
    before = tab.run("document.querySelectorAll('.turn').length")
    tab.type("#text", text)
    tab.press_enter() if enter else tab.click("#send")
    tab.until(f"document.querySelectorAll('.turn').length > {before} && !reading && {LAST}.querySelector('.note')")
    return tab.run(
        f"""(turn => ({{
            reply: turn.querySelector('.reply').textContent, note: turn.querySelector('.note').textContent,
            status: turn.querySelector('.note').dataset.status,
            risks: [...turn.querySelectorAll('.reply span')].map(s => s.title).filter(Boolean),
            tints: [...turn.querySelectorAll('.reply span')].map(s => getComputedStyle(s).backgroundColor),
            colour: getComputedStyle(turn.querySelector('.reply')).color,
            curve: turn.querySelectorAll('canvas').length,
        }}))({LAST})"""
    )


def alone(status):
    """A prompt whose reply ends so, and that Reply, from the same models without any server."""
    guard = tiny_guard()
    replies = ((prompt, guard.reply(prompt, max_new_tokens=100)) for prompt in tiny_lab().prompts)
    return next((prompt, reply) for prompt, reply in replies if reply.status == status and reply.released_text)


def again(tab):
    """A new chat; the key stays with the tab."""
    tab.open(tab.run("location.href"))


def test_it_asks_for_the_key_once_and_shows_the_reply_with_its_risk(tab):
    prompt, reply = alone("released")
    shown = say(tab, prompt)
    assert tab.run("sessionStorage.getItem('key')") == KEY
    assert (shown["status"], shown["reply"]) == ("released", reply.shown_text)
    risks = [float(re.search(r"risk ([\d.]+)", title)[1]) for title in shown["risks"]]
    assert len(risks) > 2 and risks == sorted(risks) and shown["curve"] == 1
    assert len(set(shown["tints"])) > 1 or len(set(risks)) == 1
    assert tab.run("messages") == [
        {"role": "user", "content": prompt},
        {"role": "assistant", "content": reply.shown_text},
    ]
    assert all(REFUSED in error for error in tab.errors), tab.errors


def test_a_halted_reply_is_grey_says_why_and_is_remembered_as_stopped(tab):
    again(tab)
    prompt, reply = alone("halted_output")
    shown = say(tab, prompt, enter=True)
    assert (shown["status"], shown["reply"]) == (
        "halted_output",
        reply.released_text + "\n\n" * bool(reply.released_text) + reply.refusal,
    )
    red, green, blue = map(int, re.findall(r"\d+", shown["colour"])[:3])
    assert red == green == blue > 60
    assert re.match(r"halted: risk [\d.]+ is over 0\.5", shown["note"])
    assert tab.run("messages.at(-1).content") == f"{reply.released_text} [stopped by the guard]"


def test_a_blocked_message_is_not_remembered(tab):
    again(tab)
    shown = say(tab, f"please {FORBIDDEN}")
    assert (shown["status"], shown["curve"]) == ("blocked_input", 0)
    assert "score 0.9000, threshold 0.5000" in shown["note"]
    assert tab.run("messages.length") == 0


def test_what_is_written_is_text_and_never_markup(tab):
    again(tab)
    text = "<img src=x onerror=alert(1)><b>hm</b>"
    say(tab, text)
    assert tab.run("document.querySelector('.user').textContent") == text
    assert tab.run("document.querySelectorAll('#chat img, #chat b').length") == 0


def test_words_come_one_by_one_and_stop_frees_the_stream():
    with process("endless", "PORT") as server, browser() as tab:
        tab.open(server.address)
        tab.run(f"sessionStorage.setItem('key', '{KEY}')")
        tab.type("#text", max(tiny_lab().prompts, key=len))
        tab.click("#send")
        tab.until(f"{LAST} && {LAST}.querySelectorAll('.reply span').length > 1")
        seen = tab.run(f"{LAST}.querySelectorAll('.reply span').length")
        tab.until(f"{LAST}.querySelectorAll('.reply span').length > {seen}")  # more, and it goes on
        assert tab.run("reading !== null && stop.hidden === false")
        tab.click("#stop")
        tab.until(f"{LAST}.querySelector('.note')")
        assert tab.run(f"{LAST}.querySelector('.note').textContent") == "stopped by you"
        until(lambda: get(f"{server.address}/health")["streams"] == 0)
        assert not tab.errors
