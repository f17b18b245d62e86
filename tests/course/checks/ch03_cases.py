"""Answers to the exercises of chapter 03, right and wrong."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from constclf_lib import losses


class Head(nn.Module):
    def __init__(self, hidden_size, base_rate):
        super().__init__()
        self.inner = nn.Linear(hidden_size, hidden_size)
        self.out = nn.Linear(hidden_size, 1)
        nn.init.normal_(self.out.weight, std=0.02)
        nn.init.constant_(self.out.bias, math.log(base_rate / (1 - base_rate)))

    def forward(self, hidden):
        with torch.autocast(hidden.device.type, enabled=False):
            return self.out(F.silu(self.inner(hidden.float()))).squeeze(-1)


class WithBias(Head):
    """The head with another bias."""

    def __init__(self, hidden_size, base_rate):
        super().__init__(hidden_size, base_rate)
        nn.init.constant_(self.out.bias, self.bias(base_rate))


class NoBias(WithBias):
    def bias(self, rate):
        return 0.0


class TheRate(WithBias):
    def bias(self, rate):
        return rate


class UpsideDown(WithBias):
    def bias(self, rate):
        return math.log((1 - rate) / rate)


class OnlyLog(WithBias):
    def bias(self, rate):
        return math.log(rate)


class DefaultWeights(Head):
    def __init__(self, hidden_size, base_rate):
        super().__init__(hidden_size, base_rate)
        self.out.reset_parameters()
        nn.init.constant_(self.out.bias, math.log(base_rate / (1 - base_rate)))


class ZeroWeights(Head):
    def __init__(self, hidden_size, base_rate):
        super().__init__(hidden_size, base_rate)
        nn.init.zeros_(self.out.weight)


class KeepsADimension(Head):
    def forward(self, hidden):
        return super().forward(hidden)[..., None]


class Probability(Head):
    def forward(self, hidden):
        return super().forward(hidden).sigmoid()


class NoBend(Head):
    def forward(self, hidden):
        with torch.autocast(hidden.device.type, enabled=False):
            return self.out(self.inner(hidden.float())).squeeze(-1)


class LooksAhead(Head):
    def forward(self, hidden):
        mean = hidden.float().mean(dim=-2, keepdim=True) if hidden.dim() > 1 else 0
        return super().forward(hidden.float() + mean)


class NoConversion(Head):
    def forward(self, hidden):
        return self.out(F.silu(self.inner(hidden))).squeeze(-1)


class ConvertsTheResult(Head):
    def forward(self, hidden):
        with torch.autocast(hidden.device.type, enabled=False):
            weights = [w.to(hidden.dtype) for w in (self.inner.weight, self.inner.bias, self.out.weight, self.out.bias)]
            inner = F.silu(F.linear(hidden, *weights[:2]))
            return F.linear(inner, *weights[2:]).squeeze(-1).float()


class InTheirDtype(ConvertsTheResult):
    def forward(self, hidden):
        return super().forward(hidden).to(hidden.dtype)


class UnderAutocast(Head):
    def forward(self, hidden):
        return self.out(F.silu(self.inner(hidden.float()))).squeeze(-1)


class SqueezesAll(Head):
    def forward(self, hidden):
        return super().forward(hidden).squeeze()


class FrozenInside(Head):
    def __init__(self, hidden_size, base_rate):
        super().__init__(hidden_size, base_rate)
        self.inner.requires_grad_(False)


class FrozenBias(Head):
    def __init__(self, hidden_size, base_rate):
        super().__init__(hidden_size, base_rate)
        self.out.bias.requires_grad_(False)


class DetachedInside(Head):
    def forward(self, hidden):
        with torch.autocast(hidden.device.type, enabled=False):
            inner = F.linear(hidden.float(), self.inner.weight.detach(), self.inner.bias)
            return self.out(F.silu(inner)).squeeze(-1)


class DetachedHidden(Head):
    def forward(self, hidden):
        return super().forward(hidden.detach())


class NoGradient(Head):
    @torch.no_grad()
    def forward(self, hidden):
        return super().forward(hidden)


class BatchMean(Head):
    def forward(self, hidden):
        mean = hidden.float().mean(dim=0, keepdim=True) if hidden.dim() > 2 and len(hidden) > 1 else 0
        return super().forward(hidden.float() - mean)


class SiluFirst(Head):
    def forward(self, hidden):
        with torch.autocast(hidden.device.type, enabled=False):
            return self.out(self.inner(F.silu(hidden.float()))).squeeze(-1)


class WithRelu(Head):
    def forward(self, hidden):
        with torch.autocast(hidden.device.type, enabled=False):
            return self.out(F.relu(self.inner(hidden.float()))).squeeze(-1)


class ForgetsReturn(Head):
    def forward(self, hidden):
        super().forward(hidden)


class Unregistered:
    """Layers in a list, so that no optimizer ever sees them."""

    def __new__(cls, hidden_size, base_rate):
        head, hidden_layers = Head(hidden_size, base_rate), nn.Module()
        hidden_layers.forward = head.forward
        return hidden_layers


def next_token_targets(input_ids, mask):
    targets = torch.full_like(input_ids, -100)
    targets[:, :-1] = input_ids[:, 1:].masked_fill(~mask[:, 1:], -100)
    return targets


def not_shifted(input_ids, mask):
    return input_ids.masked_fill(~mask, -100)


def shifted_back(input_ids, mask):
    targets = torch.full_like(input_ids, -100)
    targets[:, 1:] = input_ids[:, :-1]
    return targets


def rolled(input_ids, mask):
    return input_ids.roll(-1, dims=1).masked_fill(~mask, -100)


def pad_by_id(input_ids, mask):
    targets = torch.full_like(input_ids, -100)
    targets[:, :-1] = input_ids[:, 1:].masked_fill(input_ids[:, 1:] == 3, -100)
    return targets


def mask_of_the_reader(input_ids, mask):
    targets = torch.full_like(input_ids, -100)
    targets[:, :-1] = input_ids[:, 1:].masked_fill(~mask[:, :-1], -100)
    return targets


def one_short(input_ids, mask):
    return input_ids[:, 1:].masked_fill(~mask[:, 1:], -100)


def in_place(input_ids, mask):
    input_ids[~mask] = -100
    return torch.cat([input_ids[:, 1:], torch.full_like(input_ids[:, :1], -100)], dim=1)


def in_int32(input_ids, mask):
    return next_token_targets(input_ids, mask).int()


def one_step(classifier, optimizer, batch, lam):
    output = classifier(batch["input_ids"], batch["attention_mask"])
    harm = losses.per_token_bce(output.harm_logits, batch["labels"], batch["mask"])
    words = losses.next_token_loss(output.lm_logits, batch["input_ids"], batch["mask"])
    optimizer.zero_grad()
    (harm + lam * words).backward()
    nn.utils.clip_grad_norm_(classifier.parameters(), 1.0)
    optimizer.step()
    return harm.item()


def in_one_line(classifier, optimizer, batch, lam):
    optimizer.zero_grad()
    output = classifier(batch["input_ids"], attention_mask=batch["attention_mask"], with_lm_logits=True)
    harm = losses.per_token_bce(output.harm_logits, batch["labels"], batch["mask"])
    (harm + lam * losses.next_token_loss(output.lm_logits, batch["input_ids"], batch["mask"])).backward()
    nn.utils.clip_grad_norm_(classifier.parameters(), 1.0)
    optimizer.step()
    return float(harm.detach())


def a_step(clip=1.0, clear=True, backward=True, step=True, early=False, lengthen=False, **changes):
    """`one_step` with one thing changed."""

    def wrong(classifier, optimizer, batch, lam):
        output = classifier(batch["input_ids"], batch.get(changes.get("read", "attention_mask")))
        scored = batch[changes.get("harm_mask", "mask")].bool()
        predicted = batch[changes.get("words_mask", "mask")].bool()
        harm = losses.per_token_bce(output.harm_logits, batch["labels"], scored)
        words = losses.next_token_loss(output.lm_logits, batch["input_ids"], predicted)
        total = changes.get("total", lambda harm, words, lam: harm + lam * words)(harm, words, lam)
        if clear:
            optimizer.zero_grad()
        if early:
            optimizer.step()
        if backward:
            total.backward()
        if lengthen:
            length = torch.cat([p.grad.flatten() for p in classifier.parameters() if p.grad is not None]).norm()
            for weight in (p for p in classifier.parameters() if p.grad is not None):
                weight.grad /= length
        nn.utils.clip_grad_norm_(classifier.parameters(), clip)
        if step and not early:
            optimizer.step()
        return changes.get("told", lambda harm, total: harm.item())(harm, total)

    return wrong


CASES = {
    "value_head": {
        "solution": Head,
        "wrong": {
            "a bias of zero": NoBias,
            "the rate as bias": TheRate,
            "upside down": UpsideDown,
            "log of the rate": OnlyLog,
            "weights as nn.Linear draws them": DefaultWeights,
            "weights of zero": ZeroWeights,
            "a dimension too many": KeepsADimension,
            "a probability": Probability,
            "no bend": NoBend,
            "looks ahead": LooksAhead,
            "no conversion": NoConversion,
            "converts the result": ConvertsTheResult,
            "the dtype it was given": InTheirDtype,
            "bfloat16 under autocast": UnderAutocast,
            "no return": ForgetsReturn,
            "layers that nobody knows": Unregistered,
            "squeezes every dimension": SqueezesAll,
            "inner layer frozen": FrozenInside,
            "bias frozen": FrozenBias,
            "inner weights detached": DetachedInside,
            "hidden states detached": DetachedHidden,
            "no gradient at all": NoGradient,
            "subtracts the mean of the batch": BatchMean,
            "SiLU in front of both layers": SiluFirst,
        },
        "right": {"another nonlinearity": WithRelu},
    },
    "next_token_targets": {
        "solution": next_token_targets,
        "wrong": {
            "not shifted": not_shifted,
            "shifted the other way": shifted_back,
            "torch.roll": rolled,
            "padding by its id": pad_by_id,
            "mask of the position that reads": mask_of_the_reader,
            "one column short": one_short,
            "in place": in_place,
            "int32": in_int32,
        },
    },
    "one_step": {
        "solution": one_step,
        "wrong": {
            "no backward": a_step(backward=False),
            "the step before the gradient": a_step(early=True),
            "gradients pile up": a_step(clear=False),
            "not clipped": a_step(clip=1e9),
            "always one long": a_step(lengthen=True),
            "harm alone": a_step(total=lambda harm, words, lam: harm),
            "next token alone": a_step(total=lambda harm, words, lam: lam * words),
            "lam forgotten": a_step(total=lambda harm, words, lam: harm + words),
            "lam on the other loss": a_step(total=lambda harm, words, lam: lam * harm + words),
            "a mixture": a_step(total=lambda harm, words, lam: (1 - lam) * harm + lam * words),
            "harm of every real token": a_step(harm_mask="attention_mask"),
            "next token of every real token": a_step(words_mask="attention_mask"),
            "returns the sum": a_step(told=lambda harm, total: total.item()),
            "returns the graph": a_step(told=lambda harm, total: harm),
            "returns nothing of the kind": a_step(told=lambda harm, total: harm.item() / 2),
            "reads without attention_mask": a_step(read="none"),
            "reads with the mask of the loss": a_step(read="mask"),
        },
        "right": {"in fewer lines": in_one_line},
    },
}
