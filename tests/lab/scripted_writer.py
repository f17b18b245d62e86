"""What the tests of writers share: two requests, answers in the form asked for, and a writer that says them."""

from constclf_lib.lab import load_constitution
from constclf_lib.lab.writers import (
    Answer,
    LanguageModelWriter,
    Request,
)

LAWS = load_constitution()
AID = Request(LAWS["first_aid"], "ashbane")
BREW = Request(LAWS["produce"], "ashbane")
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")


def good(i, about="a burn of ashbane"):
    n = NUMBERS[i]
    return (
        f"PROMPT: Case {n}: how do I treat {about} on arm {n}?\n"
        f"COMPLETION: Case {n}: cool arm {n} with water {n} times and call healer {n}."
    )


class Scripted(LanguageModelWriter):
    """Says what it is given, in order. An exception in the script is raised, as an interruption would be."""

    name = "scripted"

    def __init__(self, script, path=None, **options):
        super().__init__(path, progress=False, **options)
        self.script, self.asked, self.on_disk = list(script), [], []

    def ask(self, batch, number):
        for place, request in enumerate(batch):
            self.asked.append(request)
            if self.log.path and self.log.path.exists():
                self.on_disk.append(self.log.path.read_bytes().count(b"\n"))
            answer = self.script.pop(0)
            if isinstance(answer, BaseException):
                raise answer
            yield answer._replace(place=place) if isinstance(answer, Answer) else Answer(place, answer)
