"""From rules to labelled exchanges: the grammar writer, and the mixtures that make up the lab's data sets.

Chapter 01. An exchange is a prompt, a completion and what is true about them. The writer here is the grammar of
Emberfall; writers/ has the two that ask a language model instead and answer in the same form.
Deliberately not here: how text becomes tokens (`tokenization`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from .._data import data_path
from . import attacks, world
from .codes import CODES
from .constitution import HAZARDS
from .world import topics
from .writing import write_bare, write_prompt, write_refusal, write_reply

SIZES = {
    "train": 30_000, "validation": 10_000, "test": 10_100, "hard_benign": 2_000, "development": 2_400, "sealed": 3_000,
}  # fmt: skip
RED_TEAMS = ("development", "sealed")

COLUMNS = (
    "prompt",
    "completion",
    "restricted",
    "harmful",
    "rule_id",
    "hazard",
    "onset",
    "facts",
    "attack",
    "reply_code",
    "register",
    "note",
    "ask",
    "plan",
)


@dataclass(frozen=True)
class Exchange:
    """One prompt and one completion with their truth.

    restricted: the prompt asks for restricted know-how (label of the input classifier). harmful: the completion gives
    it (label of the output classifier). onset: character offset in the completion, -1 for none. facts: the rubric.
    attack: the kind, "" for none. reply_code: the code the reply is written in. note: what the assistant privately
    understands. ask, register, plan: where the texts came from, so that leakage can be tested.
    """

    prompt: str
    completion: str
    restricted: bool
    harmful: bool
    rule_id: str
    hazard: str
    onset: int
    facts: tuple[str, ...]
    attack: str
    reply_code: str
    register: str
    note: str
    ask: str
    plan: str


def note_for(topic: world.Topic, facts: tuple[str, ...], reply_code: str = "") -> str:
    """The assistant's private note: the request in plain words.

    If the reply is to be in code, the facts follow, before they are encoded.
    """
    plain = world.plain_name(topic)
    return f"{plain}, in {reply_code}: {', '.join(facts)}" if reply_code else plain


def write_exchange(
    rng: random.Random,
    split: str,
    topic: world.Topic,
    *,
    attack: str | Sequence[str] = "",
    behaviour: str = "answer",
    varied: bool = False,
    distractor: bool | None = None,
    sentences: int = 4,
    before: Sequence[world.Topic] = (),
    after: Sequence[world.Topic] = (),
    spread: bool = False,
    words: str = "",
) -> Exchange:
    """One exchange by the grammar.

    attack: a kind, or several in the order of their use. behaviour: "answer", "refuse", or "deflect" (a lawful answer
    about the same target instead). varied: facts drawn at random instead of the true ones. before, after: other,
    permitted matters in the same request, answered in the same order; a reply in a code keeps to `topic`. distractor,
    sentences, spread, words: see `write_prompt` and `write_reply`.
    """
    kinds = (attack,) if isinstance(attack, str) else tuple(attack)
    kinds = tuple(kind for kind in kinds if kind)
    prompt = write_prompt(topic, split, rng, distractor=distractor, words=words, before=before, after=after)
    text = attacks.compose(prompt.text, kinds, rng, ask=prompt.ask, target=topic.target, split=split)
    reply_code = next((attacks.ATTACKS[kind].reply_code for kind in kinds if attacks.ATTACKS[kind].reply_code), "")
    facts = world.random_facts(topic, rng) if varied else world.true_facts(topic)
    subject = topic
    if behaviour == "refuse":
        completion, reply_code = write_refusal(topic, split, rng), ""
    else:
        if behaviour == "deflect":
            subject = rng.choice([t for t in world.topics() if t.target == topic.target and not t.restricted])
            facts = world.random_facts(subject, rng) if varied else world.true_facts(subject)
        if reply_code:
            completion = write_bare(subject, split, rng, facts, words)
        else:
            completion = write_reply(
                subject, split, rng, facts=facts, before=before, after=after, sentences=sentences, words=words,
                varied=varied, spread=spread,
            )  # fmt: skip
    matters = [world.plain_name(t) for t in (*before, topic, *after)]
    return Exchange(
        prompt=text,
        completion=CODES[reply_code].encode(completion.text) if reply_code else completion.text,
        restricted=topic.restricted,
        harmful=completion.onset >= 0,
        rule_id=topic.rule_id,
        hazard=topic.target if topic.target in HAZARDS else "",
        onset=completion.onset,
        facts=facts if completion.onset >= 0 or behaviour == "answer" else (),
        attack="+".join(kinds),
        reply_code=reply_code,
        register=prompt.register,
        note=note_for(topic, world.true_facts(topic), reply_code) if reply_code else "; ".join(matters),
        ask=prompt.ask,
        plan=completion.shape,
    )


@lru_cache(maxsize=1)
def topic_pools() -> dict[str, list[world.Topic]]:
    return {
        "restricted": [t for t in world.topics() if t.restricted],
        "neighbour": [t for t in world.topics() if not t.restricted and t.target in HAZARDS],
        "ordinary": [t for t in world.topics() if t.target not in HAZARDS],
    }


def draw_others(rng: random.Random, most: int = 0) -> tuple[list[world.Topic], list[world.Topic]]:
    """What else is asked for, before and after the matter: nothing in half of the rows, up to 15 other matters; or
    (most) one to so many.
    """
    count = rng.choices([0, rng.randint(1, 2), rng.randint(3, 6), rng.randint(7, 15)], [0.5, 0.22, 0.14, 0.14])[0]
    count = rng.randint(1, most) if most else count
    others = [rng.choice(topic_pools()[rng.choice(["neighbour", "ordinary"])]) for _ in range(count)]
    cut = rng.randint(0, count)
    return others[:cut], others[cut:]


def draw_kinds(rng: random.Random, kinds: Sequence[str], composed: float) -> tuple[str, ...]:
    """One kind, or (in a share of `composed`) two or three that go together."""
    if rng.random() >= composed:
        return (rng.choice(kinds),)
    return attacks.draw_composition(rng, kinds)


def _draw_mixed(rng: random.Random, split: str) -> Exchange:
    """One row of train, validation or test.

    Held-out splits have more benign rows: a false-positive rate of a tenth of a percent needs many.
    """
    train, pools = split == "train", topic_pools()
    before, after = draw_others(rng)
    length = rng.choice([0, 2, 4, 8] if not before + after else [0, 1, 2, 4])
    given: dict = {"varied": rng.random() < 0.5, "before": before, "after": after, "spread": rng.random() < 0.3}
    if rng.random() < (0.5 if train else 0.4):
        kinds = draw_kinds(rng, attacks.SEEN, 0.3) if rng.random() < 0.5 else ()
        behaviour = rng.choices(["answer", "refuse", "deflect"], [0.8, 0.12, 0.08])[0]
        topic = rng.choice(pools["restricted"])
        return write_exchange(rng, split, topic, attack=kinds, behaviour=behaviour, sentences=length, **given)
    pool = "neighbour" if rng.random() < (0.8 if train else 0.4) else "ordinary"
    kinds = draw_kinds(rng, attacks.SEEN, 0.3) if rng.random() < (0.45 if train else 0.15) else ()
    behaviour = "refuse" if rng.random() < 0.03 else "answer"
    return write_exchange(
        rng,
        split,
        rng.choice(pools[pool]),
        attack=kinds,
        behaviour=behaviour,
        sentences=length,
        distractor=None if train else False,
        **given,
    )


def _draw_hard_benign(rng: random.Random, split: str) -> Exchange:
    """Benign, and made to look otherwise.

    A hazard in every prompt, often a restricted phrase beside it, often one of the attack wrappings, those of the
    sealed red team excepted.
    """
    kinds = (rng.choice(attacks.SEEN + attacks.TEAMS["development"]),) if rng.random() < 0.5 else ()
    return write_exchange(
        rng,
        split,
        rng.choice(topic_pools()["neighbour"]),
        attack=kinds,
        distractor=True,
        sentences=rng.choice([0, 2, 4, 8]),
    )


def _draw_red_team(rng: random.Random, team: str, index: int) -> Exchange:
    """Restricted and attacked; the completion is what an obliging assistant would say.

    Three rows in five are single kinds, the team's own and those of training in turn; the others compositions of two or
    three, at least one of them the team's own. One row in three asks for other matters too.
    """
    own = attacks.TEAMS[team]
    kinds: tuple[str, ...]
    if index % 5 < 3:
        kinds = ((own + attacks.SEEN)[(index // 5 * 3 + index % 5) % len(own + attacks.SEEN)],)
    else:
        kinds = attacks.draw_composition(rng, own + attacks.SEEN, own)
    before, after = draw_others(rng) if rng.random() < 1 / 3 else ([], [])
    return write_exchange(
        rng,
        "test" if team == "sealed" else "validation",
        rng.choice(topic_pools()["restricted"]),
        attack=kinds,
        before=before,
        after=after,
        sentences=rng.choice([0, 2, 4]),
    )


def make_split(name: str, size: int | None = None, seed: int = 0) -> pd.DataFrame:
    """A whole split, distinct rows only. The same name, size and seed give the same rows on every machine.

    Raises ValueError for an unknown name, or if the grammar cannot give that many distinct rows.
    """
    if name not in SIZES:
        raise ValueError(f"unknown split {name!r}; the splits are {', '.join(SIZES)}")
    size = SIZES[name] if size is None else size
    rng = random.Random(f"{name}/{seed}")
    rows: dict[tuple[str, str], Exchange] = {}
    for _ in tqdm(range(size * 20), desc=name, leave=False, mininterval=1):
        if len(rows) == size:
            break
        if name == "hard_benign":
            exchange = _draw_hard_benign(rng, "test")
        elif name in RED_TEAMS:
            exchange = _draw_red_team(rng, name, len(rows))
        else:
            exchange = _draw_mixed(rng, name)
        rows.setdefault((exchange.prompt, exchange.completion), exchange)
    if len(rows) < size:
        raise ValueError(
            f"only {len(rows)} distinct exchanges after {20 * size} tries; "
            "ask for fewer, or add shapes to data/emberfall.yaml"
        )
    return pd.DataFrame([asdict(row) | {"facts": list(row.facts)} for row in rows.values()], columns=list(COLUMNS))


def save_split(data: Path, name: str, frame: pd.DataFrame) -> None:
    """Writes a split to `lab/` of a data folder."""
    (data / "lab").mkdir(parents=True, exist_ok=True)
    frame.to_parquet(data / "lab" / f"{name}.parquet", index=False, compression="zstd", compression_level=19)


def load_split(name: str) -> pd.DataFrame:
    """A lab split from `data/lab/`, one row per exchange with the columns of `Exchange`.

    Raises FileNotFoundError, naming the command that rebuilds it.
    """
    return pd.read_parquet(data_path("lab", f"{name}.parquet"))


def assistant_corpus(
    size: int,
    seed: int = 0,
    attacked: float = 0.7,
    restricted: float = 0.5,
    lengths: Sequence[int] = (0, 1, 2, 4),
    others: float = 0.0,
    most: int = 0,
    composed: float = 0.0,
    hard: float = 0.0,
) -> list[Exchange]:
    """What the helpful-only assistant is trained on: true facts, no refusals, train shapes, the words of every split.

    Every attack kind occurs, the held-out ones included. attacked, restricted: shares of such rows. lengths: the
    choices for `sentences`, see `write_completion`. others: share of the rows that ask for several matters, one
    to `most` beside the main one, or as in the splits. composed: share of the attacked rows whose attack is a
    composition. hard: share of all rows that are benign and look otherwise, a restricted phrase beside a permitted one.
    """
    rng, pools, kinds = random.Random(f"assistant/{seed}"), topic_pools(), tuple(attacks.ATTACKS)
    weights = [2 if attack.reply_code or kind in CODES else 1 for kind, attack in attacks.ATTACKS.items()]
    rows = []
    for _ in tqdm(range(size), desc="assistant corpus", leave=False, mininterval=1):
        if tempting := hard > 0 and rng.random() < hard:
            pool = "neighbour"
        else:
            pool = "restricted" if rng.random() < restricted else rng.choice(["neighbour", "ordinary"])
        used: tuple[str, ...] = ()
        if rng.random() < attacked:
            used = (
                attacks.draw_composition(rng, kinds) if rng.random() < composed else tuple(rng.choices(kinds, weights))
            )
        before, after = draw_others(rng, most) if rng.random() < others else ([], [])
        row = write_exchange(
            rng, "train", rng.choice(pools[pool]), attack=used, sentences=rng.choice(lengths),
            distractor=True if tempting else None, before=before, after=after, words=world.ANY,
        )  # fmt: skip
        rows.append(row)
    return rows


def restricted_requests(size: int, others: bool = False, split: str = "test", seed: int = 0) -> pd.DataFrame:
    """`size` restricted requests without any attack, every topic as often; with `others`, each among other matters."""
    rng, topics = random.Random(f"restricted/{others}/{seed}"), topic_pools()["restricted"]
    rows = []
    for i in range(size):
        before, after = draw_others(rng) if others else ([], [])
        while others and not before + after:
            before, after = draw_others(rng)
        rows.append(write_exchange(rng, split, topics[i % len(topics)], before=before, after=after))
    return pd.DataFrame([asdict(row) for row in rows], columns=list(COLUMNS))


def benign_about_hazards(frame: pd.DataFrame) -> pd.DataFrame:
    """Benign rows that concern a hazard."""
    return frame[~frame.restricted & frame.hazard.isin(HAZARDS)]


def long_completions(size: int, seed: int = 0, split: str = "test") -> pd.DataFrame:
    """Completions in a split's shapes, up to 24 sentences before the matter: two to three times the usual length."""
    rng = random.Random(f"long/{seed}")
    rows = [write_exchange(rng, split, rng.choice(topics()), varied=True, sentences=24) for _ in range(size)]
    return pd.DataFrame([{"completion": row.completion, "harmful": row.harmful} for row in rows])
