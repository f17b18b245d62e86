"""Checks of chapter 03, the value head."""

from __future__ import annotations

import copy
import math
from types import SimpleNamespace

import torch
from torch import nn

from ... import losses
from .framework import NotYet, attempted, exercise

WIDTH = 64  # of the hidden states that a head is tried on


@exercise("3.1")
def value_head(answer):
    for rate in (0.2, 0.02):
        head = answer(WIDTH, rate)
        hidden = (2 * torch.randn(4, 32, WIDTH)).requires_grad_()
        logits = _logits(head, hidden, [4, 32])
        if not list(head.parameters()):
            raise NotYet("your head has no parameters: layers must be made in __init__ and kept as self.something.")
        _says(logits, rate)
        _learns(head, hidden, logits)
    _reads_one_position(head)
    _keeps_float32(head)


def _logits(head, hidden: torch.Tensor, shape: list[int]) -> torch.Tensor:
    logits = head(hidden)
    if logits is None and list(head.parameters()):
        raise NotYet("forward returned None; is a `return` missing?")
    if not isinstance(attempted(logits), torch.Tensor):
        raise NotYet(f"forward returns a {type(logits).__name__}; it should be a tensor of logits.")
    if list(logits.shape) == [*shape, 1]:
        raise NotYet(f"your logits have the shape {list(logits.shape)}; take the last dimension away: {shape}.")
    if list(logits.shape) != shape:
        raise NotYet(
            f"hidden states {list(hidden.shape)} give {list(logits.shape)}; one logit per position is {shape}."
        )
    return logits


def _says(logits: torch.Tensor, rate: float) -> None:
    """An untrained head says the base rate, whatever it reads."""
    wanted, middle = math.log(rate / (1 - rate)), float(logits.detach().mean())
    said, spread = logits.detach().sigmoid(), float(logits.detach().std())
    if 0 < float(logits.detach().min()) and abs(middle - rate) < 0.05:
        raise NotYet(f"you return {middle:.2f} for the rate {rate}: the logit is asked for, not the probability.")
    if spread < 0.3:
        if abs(middle - rate) < 0.05 < abs(middle):
            raise NotYet(f"the bias is the rate {rate} itself; the sigmoid makes {said.mean():.2f} of it.")
        if abs(middle + wanted) < 0.1:
            raise NotYet(f"for the rate {rate} it says {said.mean():.2f}, the share of the harmless: upside down.")
        if abs(middle - math.log(rate)) < 0.1 < abs(math.log(rate) - wanted):
            raise NotYet(f"the bias log({rate}) forgets the other class: it says {said.mean():.2f}, not {rate}.")
        if abs(middle) < 0.1 < abs(wanted):
            raise NotYet(f"before training it says {said.mean():.2f} everywhere; base_rate was {rate}. Set the bias.")
    if float(said.min()) < rate / 2 or float(said.max()) > 2 * rate:
        raise NotYet(
            f"before training it says {said.min():.3f} to {said.max():.3f}, depending on what it reads; with the rate "
            f"{rate} stay between {rate / 2:g} and {2 * rate:g}: smaller weights in the last layer, and the bias."
        )


def _learns(head, hidden: torch.Tensor, logits: torch.Tensor) -> None:
    """The first step's gradient reaches every weight, and the backbone behind the hidden states."""
    if not logits.requires_grad:
        raise NotYet("no gradient reaches any weight of your head: is there a no_grad or a detach in forward?")
    logits.sum().backward()
    if hidden.grad is None:
        raise NotYet("no gradient reaches the hidden states, so a backbone would learn nothing: is there a detach?")
    if not hidden.grad.any():
        raise NotYet("your last layer starts at exactly zero, so the first step's gradient stops in front of it.")
    stuck = [name for name, weight in head.named_parameters() if weight.grad is None or not weight.grad.any()]
    if stuck:
        raise NotYet(f"a weight of your head gets no gradient in the first step: {', '.join(stuck)}.")


def _reads_one_position(head) -> None:
    _logits(head, torch.randn(WIDTH), [])
    _logits(head, torch.randn(1, 1, WIDTH), [1, 1])
    a, b = 20 * torch.randn(2, 9, WIDTH), 20 * torch.randn(2, 9, WIDTH)
    with torch.no_grad():
        at_a, at_b, at_sum, at_zero = (_logits(head, x, [2, 9]) for x in (a, b, a + b, 0 * a))
        if (at_a + at_b - at_sum - at_zero).abs().max() < 1e-3 * at_a.std():
            raise NotYet("your head is one linear map: without a nonlinearity between them two linear layers are one.")
        up_a, up_b = a.abs() + 20, b.abs() + 20  # where SiLU is the identity
        over_a, over_b, between = (_logits(head, x, [2, 9]) for x in (up_a, up_b, (up_a + up_b) / 2))
        if (over_a + over_b - 2 * between).abs().max() < 1e-3 * at_a.std():
            raise NotYet("on inputs above 20 your head is one linear map: the SiLU goes between the two layers.")
        changed = torch.cat([a[:, :5], b[:, 5:]], dim=1)
        if not torch.allclose(_logits(head, changed, [2, 9])[:, :5], at_a[:, :5], atol=1e-4):
            raise NotYet("the logits at positions 0 to 4 move when positions 5 to 8 change: it must not look ahead.")
        if not torch.allclose(at_a[1, 7], _logits(head, a[1, 7], []), atol=1e-4):
            raise NotYet("the logit of one position depends on the others: alone it gets another one.")


def _keeps_float32(head) -> None:
    coarse = (2 * torch.randn(3, 8, WIDTH)).bfloat16()
    with torch.no_grad():
        wanted = _logits(head, coarse.float(), [3, 8])
        try:
            got = _logits(head, coarse, [3, 8])
        except RuntimeError as error:
            raise NotYet("bfloat16 hidden states make your float32 layers fail: convert hidden first.") from error
        if got.dtype != torch.float32:
            raise NotYet(f"for hidden states in bfloat16 you return {got.dtype}; it should be torch.float32.")
        if not torch.allclose(got, wanted, atol=1e-6):
            raise NotYet("for bfloat16 you compute in bfloat16 and convert the result; by then the digits are gone.")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = _logits(head, coarse.float(), [3, 8])
    if mixed.dtype != torch.float32 or not torch.allclose(mixed, wanted, atol=1e-6):
        raise NotYet(
            f"under autocast your layers compute in bfloat16 (they give {mixed.dtype}): .float() does not help there, "
            "switch autocast off inside forward."
        )


@exercise("3.2")
def next_token_targets(answer):
    ids = torch.tensor([[5, 6, 7, 8], [9, 5, 3, 3]])  # the second row ends with the token 3, and is padded with it too
    mask = torch.tensor([[True, True, True, True], [True, True, True, False]])
    wanted = torch.tensor([[6, 7, 8, -100], [5, 3, -100, -100]])
    given, given_mask = ids.clone(), mask.clone()
    targets = _tensor(answer(given, given_mask))
    if targets is None or targets.shape != ids.shape:
        shape = "no numbers" if targets is None else list(targets.shape)
        raise NotYet(f"for input_ids of the shape [2, 4] you return {shape}; give one target per logit, [2, 4].")
    if targets.is_floating_point() or targets.dtype == torch.bool:
        raise NotYet(f"targets are token ids, so integers; yours are {targets.dtype}.")
    if targets.dtype != torch.int64:
        raise NotYet(f"F.cross_entropy takes targets in torch.int64, as input_ids are; yours are {targets.dtype}.")
    if not torch.equal(given, ids) or not torch.equal(given_mask, mask):
        raise NotYet("you changed input_ids or mask in place; the caller still needs them: work on a copy.")
    first, second = targets.tolist()
    if first[:3] == [5, 6, 7]:
        raise NotYet("the target at position 0 is token 0, which those logits have read. They predict token 1.")
    if first[1:] == [5, 6, 7]:
        raise NotYet("your targets move to the right: position 1 is asked for token 0, which it has read.")
    if first[3] == 5:
        raise NotYet("your last position predicts the first token of its row: torch.roll goes round.")
    if first[3] != -100:
        raise NotYet(f"nothing follows the last token of row 0, so its target is -100, not {first[3]}.")
    if second[:2] == [5, -100]:
        raise NotYet("the real token 3 that ends row 1 is left out: do not look for padding by its id, use the mask.")
    if second[2] == 3:
        raise NotYet("row 1, position 2: the token *predicted* there is padding. Ask the mask about the target.")
    if not torch.equal(targets, wanted):
        raise NotYet(f"for the ids {ids.tolist()} the targets should be {wanted.tolist()}, not {targets.tolist()}.")
    left = torch.tensor([[False, False, True, True], [True, True, True, True]])
    if not torch.equal(_tensor(answer(ids, left)), torch.tensor([[-100, 7, 8, -100], [5, 3, 3, -100]])):
        raise NotYet("right for a mask that ends early, wrong for one that begins late (a prompt in front).")


def _tensor(values) -> torch.Tensor | None:
    try:
        return values if isinstance(values, torch.Tensor) else torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError):
        return None


class _Toy(nn.Module):
    """Stands in for an OutputClassifier: position t has read the real tokens up to t, two heads read position t."""

    def __init__(self, scale: float):
        super().__init__()
        self.words, self.lm, self.harm = nn.Embedding(12, 6), nn.Linear(6, 12), nn.Linear(6, 1)
        for weight in self.parameters():
            nn.init.normal_(weight, std=scale)

    def forward(self, input_ids, attention_mask=None, past_key_values=None, use_cache=False, with_lm_logits=True):
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        hidden = (self.words(input_ids) * real[..., None]).cumsum(dim=1)
        lm_logits = self.lm(hidden) if with_lm_logits else None
        return SimpleNamespace(harm_logits=self.harm(hidden).squeeze(-1), lm_logits=lm_logits, past_key_values=None)


RATE = 0.5  # of plain gradient descent, so that a step shows the gradient it was made from


def _batch(seed: int) -> dict[str, torch.Tensor]:
    """Three texts behind two tokens that are no part of them; the second is padded behind, the third in front."""
    attention = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [0, 1, 1, 1, 1, 1]])
    ids = torch.randint(12, (3, 6), generator=torch.Generator().manual_seed(seed))
    mask = attention.bool()
    mask[:, :2] = False
    return {"input_ids": ids, "attention_mask": attention, "mask": mask, "labels": torch.tensor([1.0, 0.0, 1.0])}


def _parts(toy, batch, for_harm="mask", for_words="mask", read="attention_mask") -> tuple[torch.Tensor, torch.Tensor]:
    output = toy(batch["input_ids"], batch.get(read))
    harm = losses.per_token_bce(output.harm_logits, batch["labels"], batch[for_harm].bool())
    return harm, losses.next_token_loss(output.lm_logits, batch["input_ids"], batch[for_words].bool())


def _after(toy, loss: torch.Tensor, clip: float = 1.0) -> torch.Tensor:
    """All weights, end to end, after one step of gradient descent on `loss`."""
    gradient = _gradient(toy, loss)
    return _weights(toy) - RATE * gradient * min(1.0, clip / float(gradient.norm()))


def _gradient(toy, loss: torch.Tensor) -> torch.Tensor:
    found = torch.autograd.grad(loss, list(toy.parameters()), retain_graph=True, materialize_grads=True)
    return torch.cat([part.flatten() for part in found])


def _weights(toy) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in toy.parameters()])


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, atol=1e-4)


@exercise("3.3")
def one_step(answer):
    toy, batch, lam = _Toy(scale=1.5), _batch(0), 0.3
    harm, words = _parts(toy, batch)
    wanted, before = _after(toy, harm + lam * words), _weights(toy)
    wrong = _mistakes(toy, batch, lam)
    optimizer = torch.optim.SGD(toy.parameters(), lr=RATE)
    told = answer(toy, optimizer, batch, lam)
    got = _weights(toy)
    if _same(got, before):
        if any(weight.grad is not None and weight.grad.any() for weight in toy.parameters()):
            raise NotYet(
                "there is a gradient and no weight has moved: optimizer.step() is missing, or comes too early."
            )
        raise NotYet("no weight has moved and no gradient is left: is backward missing, or zero_grad right behind it?")
    for other, diagnosis in wrong:
        if _same(got, other) and not _same(wanted, other):
            raise NotYet(diagnosis)
    if not _same(got, wanted):
        raise NotYet(
            "the weights moved, but not down the gradient of harm + lam * next_token, clipped to the length 1."
        )
    _told(told, harm.item(), (harm + lam * words).item())
    _second_step(answer, toy, optimizer, lam)
    _without_next_token(answer)


def _mistakes(toy, batch, lam: float) -> list[tuple[torch.Tensor, str]]:
    """Weights after a wrong step, and what went wrong."""
    harm, words = _parts(toy, batch)
    outside, _ = _parts(toy, batch, for_harm="attention_mask")
    _, given = _parts(toy, batch, for_words="attention_mask")
    (blind_harm, blind_words), (short_harm, short_words) = (_parts(toy, batch, read=name) for name in ("no", "mask"))
    total = harm + lam * words
    totals = [
        (blind_harm + lam * blind_words, "the classifier never got attention_mask, so it read padding as words."),
        (short_harm + lam * short_words, 'the classifier reads with attention_mask; batch["mask"] hides the prompt.'),
        (harm, "your step follows the harm loss alone: lam * next_token is not in it."),
        (lam * words, "your step follows the next-token loss alone: the harm loss is not in it."),
        (harm + words, "your step adds the next-token loss at full strength: it should weigh lam."),
        (lam * harm + words, "lam weighs your harm loss; it should weigh the next-token loss."),
        (
            (1 - lam) * harm + lam * words,
            "you mix (1 - lam) * harm + lam * next_token; asked for is a sum, harm whole.",
        ),
        (outside + lam * words, 'for the harm loss you use attention_mask; what is scored says batch["mask"].'),
        (harm + lam * given, 'for the next-token loss you use attention_mask; use batch["mask"] for both.'),
    ]
    clip = f"the gradient is {_gradient(toy, total).norm():.1f} long and your step used all of it: clip its norm to 1."
    return [*((_after(toy, loss), said) for loss, said in totals), (_after(toy, total, clip=math.inf), clip)]


def _told(told, harm: float, total: float) -> None:
    if isinstance(told, torch.Tensor) and told.requires_grad:
        raise NotYet(
            "you return a loss that still holds its whole graph, and a list of them fills the memory: .item() it."
        )
    try:
        told = float(told)
    except (TypeError, ValueError) as error:
        raise NotYet(f"return one number, the harm loss of this batch, not a {type(told).__name__}.") from error
    if abs(told - harm) < 1e-3:
        return
    if abs(told - total) < 1e-3:
        raise NotYet(f"you return {told:.3f}, the sum of both losses; the harm loss alone is {harm:.3f}.")
    raise NotYet(f"you return {told:.3f}; the harm loss of the pass that made the gradient is {harm:.3f}.")


def _second_step(answer, toy, optimizer, lam: float) -> None:
    """The gradient of one batch must not be in the next one's step."""
    batch = _batch(1)
    harm, words = _parts(toy, batch)
    wanted = _after(toy, harm + lam * words)
    answer(toy, optimizer, batch, lam)
    if not _same(_weights(toy), wanted):
        raise NotYet("your first step is right, the second holds the first one's gradient too: optimizer.zero_grad().")


def _without_next_token(answer) -> None:
    """lam 0, and a gradient that is shorter than 1: nothing to clip."""
    toy, batch = _Toy(scale=0.1), _batch(2)
    copied = copy.deepcopy(toy)
    harm, _ = _parts(copied, batch)
    wanted = _after(copied, harm)
    answer(toy, torch.optim.SGD(toy.parameters(), lr=RATE), batch, 0.0)
    if not _same(_weights(toy), wanted):
        raise NotYet("right for lam 0.3, wrong for lam 0 and a short gradient: clipping shortens, it never lengthens.")
