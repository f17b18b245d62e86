"""The check of exercise 9.4, the climber: single steps, then twenty of them loose on a stub of a guard."""

from __future__ import annotations

import random

from .framework import NotYet, attempted, exercise


@exercise("9.4")
def climber(answer):
    def new(patience=12, seed=0):
        """A climber whose plans say where they come from: "new 1", "new 1*", "new 1**"."""
        drawn = iter(range(1, 10**6))

        def draw(rng):
            return f"new {next(drawn)}" if _generator(rng) else ""

        def change(plan, rng):
            return f"{plan}*" if _generator(rng) else ""

        return answer(draw, change, seed, patience)

    def ask(one):
        return attempted(one.propose())

    one = new()
    if (first := ask(one)) != "new 1":
        raise NotYet(f"the first plan is drawn: propose should return draw(rng), not {first!r}.")
    one.learn(first, "one two three")
    if (second := ask(one)) != "new 1*":
        raise NotYet(
            f"after a first text the next plan is change(best, rng), a neighbour of {first!r}; you propose {second!r}."
        )
    one.learn(second, "one two three four")
    if (third := ask(one)) != "new 1**":
        raise NotYet(f"four words beat three: the best is now 'new 1*', its neighbour 'new 1**'; you give {third!r}.")
    one.learn(third, "one")
    if (fourth := ask(one)) != "new 1**":
        raise NotYet(f"one word is worth less than four, so 'new 1*' stays the best; you propose {fourth!r}.")
    one.learn(fourth, "extraordinarily elaborate sentences")
    if (fifth := ask(one)) != "new 1**":
        raise NotYet(f"three long words are worth less than four short ones: count words, not letters ({fifth!r}).")
    one.learn(fifth, "four words once more")
    if ask(one) != "new 1***":
        raise NotYet(
            "a text worth just as much should move the climber too: on a plateau it would stand still for ever."
        )
    _patience(new, ask)
    a, b = new(), new()
    a.learn(ask(a), "one two three")
    if (other := ask(b)) != "new 1":
        raise NotYet(f"a second climber starts at {other!r}: what one attacker learnt is in the other one, too.")
    _silence(new, ask)
    three = [answer(lambda rng: rng.random(), None, seed, 12) for seed in (1, 1, 2)]
    first, again, other = (attempted(one.propose()) for one in three)
    if first != again or first == other:
        raise NotYet(
            "the seed decides: draw from one random.Random(seed), the same seed the same plans, another others."
        )
    one = answer(lambda rng: rng.random(), lambda plan, rng: plan, 0, 2)
    first = one.propose()
    for _ in range(3):
        one.learn(first, "one")
    if one.propose() == first:
        raise NotYet(
            "after a new start the climber draws its very first plan again, and will walk the same way: go on with the "
            "generator that you have."
        )
    _climbs(answer)


def _generator(rng):
    """True, or a diagnosis."""
    if not isinstance(rng, random.Random):
        raise NotYet(
            f"draw(rng) and change(plan, rng) want a generator, random.Random(seed), where you hand them "
            f"a {type(rng).__name__}."
        )
    return True


def _silence(new, ask):
    """Blocked prompts: nothing is released."""
    one = new()
    one.learn(ask(one), "word")
    one.learn(ask(one), "")
    if (moved := ask(one)) != "new 1*":
        raise NotYet(f"an empty text has no word, and one word stays the best; you propose {moved!r}.")
    one = new(patience=3)
    one.learn(ask(one), "")
    if (second := ask(one)) != "new 1*":
        raise NotYet(
            f"the first text is empty, and with nothing known even that makes 'new 1' the best; you propose {second!r}."
        )
    one.learn(second, "")
    one.learn(third := ask(one), "")
    if "new 2" in (third, fourth := ask(one)):
        raise NotYet(
            "patience 3, and three empty texts: the first is better than nothing, so only two were no better, "
            "and it is too early for a new start."
        )
    one.learn(fourth, "")
    if (restarted := ask(one)) != "new 2":
        raise NotYet(f"patience 3, and three empty texts after the first: the next is drawn; you give {restarted!r}.")


def _patience(new, ask):
    one, plans = new(patience=3), []
    for text in ("a b", "a", "a", "a b c", "a b c", "a", "a b"):
        plans.append(ask(one))
        one.learn(plans[-1], text)
    if "new 2" in plans[5:]:
        raise NotYet("patience 3, and only two texts in a row were no better: a better text starts the count anew.")
    if (restarted := ask(one)) != "new 2":
        raise NotYet(
            "patience 3, and three texts in a row were no better (the first of them as good): the next plan is drawn "
            f"anew; you propose {restarted!r}."
        )
    one.learn(restarted, "a")
    if (moved := ask(one)) != "new 2*":
        raise NotYet(f"after a new start nothing is known: one word makes 'new 2' the best; you propose {moved!r}.")


SLOTS_OF_STUB, OPTIONS = 6, 5


def _climbs(answer):
    """Against a stub of a guard that says one word more for every slot that fits: feedback worth following."""

    def draw(rng):
        return tuple(rng.randrange(OPTIONS) for _ in range(SLOTS_OF_STUB))

    def change(plan, rng):
        at = rng.randrange(SLOTS_OF_STUB)
        return (*plan[:at], rng.randrange(OPTIONS), *plan[at + 1 :])

    reached = 0
    for seed in range(20):
        hole, one = draw(random.Random(f"hole/{seed}")), answer(draw, change, seed, 200)
        for _ in range(200):
            plan = one.propose()
            fits = sum(a == b for a, b in zip(plan, hole, strict=True))
            reached += fits == SLOTS_OF_STUB
            one.learn(plan, " ".join(["word"] * (1 + fits)))
            if fits == SLOTS_OF_STUB:
                break
    if reached < 15:
        raise NotYet(f"against a stub that says more the closer it is, {reached} of 20 climbers arrive in 200 queries.")
