"""The losses of chapter 10 against their definitions in plain Python with 60 digits, and their limits."""

from decimal import Decimal, localcontext

import pytest
import torch
from torch.testing import assert_close

from constclf_lib.losses import per_token_bce, sliding_window_mean, softmax_weighted_bce, spread_weighted_bce

LOSSES = [softmax_weighted_bce, spread_weighted_bce]


def example(dtype=torch.float64):
    torch.manual_seed(3)
    logits = (4 * torch.randn(4, 9)).to(dtype)
    mask = torch.rand(4, 9) < 0.7
    mask[2] = False
    mask[3] = torch.arange(9) == 4
    return logits, torch.tensor([1.0, 0.0, 1.0, 0.3], dtype=dtype), mask


def definition(logits, labels, mask, score):
    """Mean over sequences of sum_t softmax_t(score) BCE_t, in Decimals."""
    with localcontext() as context:
        context.prec = 60
        totals = []
        for row, y, on in zip(logits, labels, mask, strict=True):
            y, z = Decimal(y), [Decimal(value) for value, marked in zip(row, on, strict=True) if marked]
            if not z:
                continue
            losses = [-(y * (1 / (1 + (-v).exp())).ln() + (1 - y) * (1 / (1 + v.exp())).ln()) for v in z]
            weights = [(score(v) - max(map(score, z))).exp() for v in z]
            totals.append(sum(w * loss for w, loss in zip(weights, losses, strict=True)) / sum(weights))
        return float(sum(totals) / len(totals))


@pytest.mark.parametrize("tau", [0.25, 1.0, 7.0])
def test_softmax_weighted_is_the_definition(tau):
    logits, labels, mask = example()
    want = definition(logits.tolist(), labels.tolist(), mask.tolist(), lambda z: z / Decimal(tau))
    assert_close(softmax_weighted_bce(logits, labels, mask, tau).item(), want, rtol=1e-12, atol=0)


@pytest.mark.parametrize("spread", [0.1, 0.9])
def test_spread_weighted_is_the_definition(spread):
    logits, labels, mask = example()
    p = torch.sigmoid(logits[mask])
    beta = min(1.0, float(((p - p.mean()) ** 2).mean().sqrt()) / spread)
    want = definition(
        logits.tolist(), labels.tolist(), mask.tolist(),
        lambda z: Decimal(beta) / (1 + (-z).exp()) / Decimal("0.1"),
    )  # fmt: skip
    assert_close(spread_weighted_bce(logits, labels, mask, 0.1, spread).item(), want, rtol=1e-9, atol=0)


def test_tokens_that_look_alike_make_it_option_a():
    logits, labels, mask = example()
    flat = torch.full_like(logits, 0.7)
    for loss in LOSSES:
        assert_close(loss(flat, labels, mask), per_token_bce(flat, labels, mask))
    assert_close(softmax_weighted_bce(logits, labels, mask, 1e9), per_token_bce(logits, labels, mask))


def test_a_small_tau_looks_at_the_loudest_token_alone():
    logits, labels, mask = torch.tensor([[-3.0, 2.0, 0.0]]), torch.tensor([0.0]), torch.ones(1, 3, dtype=torch.bool)
    assert_close(softmax_weighted_bce(logits, labels, mask, 1e-3), per_token_bce(logits[:, 1:2], labels, mask[:, 1:2]))


def test_gradients():
    logits, labels, mask = example()
    assert torch.autograd.gradcheck(lambda z: softmax_weighted_bce(z, labels, mask, 0.8), logits.requires_grad_())
    z = logits.detach().requires_grad_()
    spread_weighted_bce(z, labels, mask).backward()
    p, y = torch.sigmoid(z.detach()), labels[:, None]
    share = z.grad / torch.where(mask, p - y, 1.0)  # what is left is each token's weight over the number of sequences
    assert_close(share[mask.any(1)].sum(1), torch.full((3,), 1 / 3, dtype=torch.float64))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("size", [17.0, 90.0, 1e4])
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_finite_at_extremes(loss, size, label):
    z = torch.tensor([[-size, 0.0, size]], requires_grad=True)
    value = loss(z, torch.tensor([label]), torch.ones(1, 3, dtype=torch.bool))
    value.backward()
    assert value.isfinite() and z.grad.isfinite().all()
    if loss is softmax_weighted_bce:
        assert_close(value.item(), size if label == 0 else 0.0, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), -1e30])
def test_what_stands_at_unscored_positions_does_not_matter(loss, garbage):
    logits, labels, mask = example()
    dirty = logits.masked_fill(~mask, garbage).requires_grad_()
    value = loss(dirty, labels, mask)
    value.backward()
    assert_close(value, loss(logits, labels, mask))
    assert dirty.grad.isfinite().all() and (dirty.grad[~mask] == 0).all()


def test_wrong_input_is_refused():
    logits, labels, mask = example()
    for tau in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="tau"):
            softmax_weighted_bce(logits, labels, mask, tau)
    with pytest.raises(ValueError, match="positive"):
        spread_weighted_bce(logits, labels, mask, spread=0)
    for loss in LOSSES:
        with pytest.raises(ValueError, match="labels"):
            loss(logits, labels[:2], mask)
        with pytest.raises(ValueError, match="no position"):
            loss(logits, labels, torch.zeros_like(mask))
    with pytest.raises(ValueError, match="window"):
        sliding_window_mean(logits, mask, 0)
    with pytest.raises(ValueError, match="mask"):
        sliding_window_mean(logits, mask.float(), 2)


# --- the sliding mean


@pytest.mark.parametrize("width", [1, 2, 4, 20])
def test_sliding_mean_is_the_definition(width):
    logits, _, mask = example()
    means, full = sliding_window_mean(logits, mask, width)
    for row in range(len(logits)):
        places = mask[row].nonzero().flatten().tolist()
        want = {}
        for n, place in enumerate(places):
            if n + 1 >= min(width, len(places)):
                window = [logits[row, at].item() for at in places[max(0, n + 1 - width) : n + 1]]
                want[place] = sum(window) / len(window)
        assert full[row].nonzero().flatten().tolist() == list(want)
        assert_close(means[row][full[row]].tolist(), list(want.values()))
    assert (means[~full] == 0).all()


def test_sliding_mean_of_width_one_changes_nothing():
    logits, labels, mask = example()
    means, full = sliding_window_mean(logits, mask, 1)
    assert torch.equal(full, mask)
    assert_close(softmax_weighted_bce(means, labels, full), softmax_weighted_bce(logits, labels, mask))


def test_sliding_mean_keeps_its_digits_in_a_long_sequence():
    logits = torch.cat([torch.full((1, 4000), 1e4), torch.full((1, 16), 1e-3)], dim=1)
    means, _ = sliding_window_mean(logits, torch.ones(1, 4016, dtype=torch.bool), 16)
    assert_close(means[0, -1].item(), 1e-3, rtol=1e-6, atol=0)


def test_sliding_mean_gradient_and_dirt():
    logits, labels, mask = example()

    def loss(z):
        means, full = sliding_window_mean(z, mask, 3)
        return softmax_weighted_bce(means, labels, full)

    assert torch.autograd.gradcheck(loss, logits.requires_grad_())
    dirty = logits.detach().masked_fill(~mask, float("nan")).requires_grad_()
    loss(dirty).backward()
    assert dirty.grad.isfinite().all()
    assert sliding_window_mean(logits.half(), mask, 3)[0].dtype == torch.float32
