"""The pictures of the page in docs/: python tools/page_pictures.py

Starts `constclf serve --ui` with the lab's guard, types three requests into the page in chromium, as
tests/serve/test_page.py does with tiny models, and writes docs/page_writing.png (a reply on its way) and
docs/page_ended.png (how the three ended). Deliberately checks nothing: look at what it wrote.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.endpoint import server  # noqa: E402 behind the path above
from constclf_lib.lab import load_split  # noqa: E402
from tests.serve.browser import Browser, browser  # noqa: E402


def requests() -> tuple[str, str, str]:
    """A harmless request with a long reply; chapter 08's disguised one (halted in its reply); a plain restricted one
    (blocked). All fiction.
    """
    attacks, plain = load_split("development"), load_split("test")
    plain = plain[plain.attack == ""]
    single = ~plain.note.str.contains(";")
    long = (plain.note.str.count(";") == 2) & (plain.prompt.str.len() < 220)
    harmless = plain[~plain.restricted & long].prompt.iloc[0]
    disguised = attacks[~attacks.note.str.contains(";") & (attacks.attack == "code_words")].prompt.iloc[1]
    return harmless, disguised, plain[plain.restricted & single].prompt.iloc[0]


def send(tab: Browser, text: str) -> None:
    tab.type("#text", text)
    tab.click("#send")


def ended(tab: Browser, turns: int) -> None:
    tab.until(f"document.querySelectorAll('.turn > .note').length === {turns}")


def main() -> None:
    harmless, disguised, plain = requests()
    with server("--ui") as address, browser(720, 520) as tab:
        tab.open(address.removesuffix("/v1"))
        send(tab, harmless)
        tab.until("document.querySelectorAll('.reply span').length > 30")
        (ROOT / "docs" / "page_writing.png").write_bytes(tab.picture())
        ended(tab, 1)
        tab.open(address.removesuffix("/v1"))  # a new chat for each, or the ones before are judged with it
        for turn, text in enumerate((disguised, plain), 1):
            tab.run("messages = []")
            send(tab, text)
            ended(tab, turn)
        tab.resize(720, tab.run("document.documentElement.scrollHeight"))
        (ROOT / "docs" / "page_ended.png").write_bytes(tab.picture())
    for name in ("page_writing", "page_ended"):
        print(f"docs/{name}.png", f"{(ROOT / 'docs' / f'{name}.png').stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
