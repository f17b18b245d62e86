"""The losses against their definitions, evaluated with 60 digits and no smallest number: 1 - sigmoid(1e4) is 0 in any
float.
"""

from decimal import Decimal, localcontext

import pytest
import torch
from torch.testing import assert_close

from constclf_lib.losses import (
    annealed_bce,
    cumulative_max_bce,
    next_token_loss,
    next_token_loss_in_chunks,
    per_token_bce,
)

EXTREMES = [-1e4, -90.0, -17.0, -0.5, 0.0, 3.0, 25.0, 90.0, 1e4]


def reference(logits, labels, mask, omega):
    """(loss, gradient [batch][time]) of the definition, in plain loops over Decimals. The latest of equal records gets
    the gradient.
    """
    with localcontext() as context:
        context.prec = 60
        gradient = [[0.0] * len(row) for row in logits]
        scored = [[t for t, on in enumerate(row) if on] for row in mask]
        sequences = sum(1 for positions in scored if positions)
        omega, total = Decimal(omega), Decimal(0)
        for b, positions in enumerate(scored):
            y, record, z = Decimal(labels[b]), None, [Decimal(value) for value in logits[b]]
            for t in positions:
                record = t if record is None or z[t] >= z[record] else record
                (p, not_p), (top, not_top) = [(1 / (1 + (-z[s]).exp()), 1 / (1 + z[s].exp())) for s in (t, record)]
                mixed, not_mixed = (1 - omega) * p + omega * top, (1 - omega) * not_p + omega * not_top
                share = 1 / Decimal(len(positions) * sequences)
                total -= share * (y * mixed.ln() + (1 - y) * not_mixed.ln())
                slope = share * ((1 - y) / not_mixed - y / mixed)
                gradient[b][t] += float(slope * (1 - omega) * p * not_p)
                gradient[b][record] += float(slope * omega * top * not_top)
        return float(total), gradient


def loss_and_gradient(logits, labels, mask, omega):
    logits = logits.detach().clone().requires_grad_()
    loss = annealed_bce(logits, labels, mask, omega)
    loss.backward()
    return loss.detach(), logits.grad


def example(dtype=torch.float64):
    """Four ragged sequences: with a prompt, with a hole, with padding, with nothing scored; hard and soft labels."""
    torch.manual_seed(3)
    logits = 4 * torch.randn(4, 6, dtype=torch.float64)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 0, 1, 1, 0], [1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]]).bool()
    return logits.to(dtype), torch.tensor([1.0, 0.0, 0.3, 1.0]), mask


@pytest.mark.parametrize("omega", [0.0, 1e-12, 0.25, 0.5, 0.999, 1.0])
def test_value_and_gradient_are_the_definition(omega):
    logits, labels, mask = example()
    labels = labels.double()
    loss, gradient = loss_and_gradient(logits, labels, mask, omega)
    want, want_gradient = reference(logits.tolist(), labels.tolist(), mask.tolist(), omega)
    assert_close(loss.item(), want, rtol=1e-11, atol=0)
    assert_close(gradient, torch.tensor(want_gradient, dtype=torch.float64), rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("label", [0.0, 1.0, 0.25])
@pytest.mark.parametrize("omega", [0.0, 1e-6, 0.5, 1.0])
def test_exact_in_float32_up_to_ten_thousand(label, omega):
    pairs = [[a, b] for a in EXTREMES for b in EXTREMES if a != b]
    logits = torch.tensor(pairs)
    labels, mask = torch.full((len(pairs),), label), torch.ones(len(pairs), 2, dtype=torch.bool)
    for i, pair in enumerate(pairs):
        loss, gradient = loss_and_gradient(logits[i : i + 1], labels[i : i + 1], mask[i : i + 1], omega)
        want, want_gradient = reference([pair], [label], [[True, True]], omega)
        assert_close(loss.item(), want, rtol=3e-5, atol=1e-36, msg=lambda m, pair=pair: f"{pair}: {m}")
        # a gradient is a difference of probabilities times at most 1: it can be no better than one rounding of 1
        assert_close(
            gradient, torch.tensor([want_gradient[0]]), rtol=3e-5, atol=6e-8, msg=lambda m, pair=pair: f"{pair}: {m}"
        )


@pytest.mark.parametrize("omega", [0.0, 0.3, 1.0])
def test_gradcheck(omega):
    logits, labels, mask = example()
    assert torch.autograd.gradcheck(lambda z: annealed_bce(z, labels.double(), mask, omega), logits.requires_grad_())


def test_the_ends_of_the_ramp_are_options_a_and_b_to_the_bit():
    logits, labels, mask = example(torch.float32)
    for omega, option in ((0.0, per_token_bce), (1.0, cumulative_max_bce)):
        z = logits.clone().requires_grad_()
        option(z, labels, mask).backward()
        loss, gradient = loss_and_gradient(logits, labels, mask, omega)
        assert torch.equal(loss, option(logits, labels, mask)) and torch.equal(gradient, z.grad)


def test_a_mixture_of_probabilities_is_not_a_sum_of_losses():
    logits, labels, mask = torch.tensor([[3.0, -3.0]]), torch.tensor([1.0]), torch.tensor([[True, True]])
    mixed = annealed_bce(logits, labels, mask, 0.5)
    blended = 0.5 * per_token_bce(logits, labels, mask) + 0.5 * cumulative_max_bce(logits, labels, mask)
    assert mixed < blended - 0.3


def test_a_record_token_is_scored_the_same_whatever_omega_is():
    rising = torch.tensor([[-30.0, -2.0, 0.0, 7.0, 60.0]])
    labels, mask = torch.tensor([0.0]), torch.ones(1, 5, dtype=torch.bool)
    for omega in (0.1, 0.5, 0.9):
        assert_close(annealed_bce(rising, labels, mask, omega), per_token_bce(rising, labels, mask), rtol=1e-6, atol=0)


@pytest.mark.parametrize("omega", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), float("-inf"), 1e4])
def test_what_stands_at_unscored_positions_does_not_matter(omega, garbage):
    logits, labels, mask = example(torch.float32)
    loss, gradient = loss_and_gradient(logits, labels, mask, omega)
    dirty_loss, dirty_gradient = loss_and_gradient(logits.masked_fill(~mask, garbage), labels, mask, omega)
    assert torch.equal(loss, dirty_loss) and torch.equal(gradient, dirty_gradient)
    assert (gradient[~mask] == 0).all()


@pytest.mark.parametrize("omega", [0.0, 0.4, 1.0])
def test_padding_on_either_side_and_company_in_the_batch_change_nothing(omega):
    logits, labels, mask = example()
    labels = labels.double()
    whole, _ = loss_and_gradient(logits, labels, mask, omega)
    for left, right in ((3, 0), (0, 2)):
        padded = torch.nn.functional.pad(logits, (left, right), value=50.0)
        wider = torch.nn.functional.pad(mask, (left, right), value=False)
        assert_close(annealed_bce(padded, labels, wider, omega), whole)
    alone = [annealed_bce(logits[i : i + 1], labels[i : i + 1], mask[i : i + 1], omega) for i in range(3)]
    assert_close(torch.stack(alone).mean(), whole)


def test_a_long_sequence_counts_as_much_as_a_short_one():
    mask = torch.tensor([[True] * 50, [True] + [False] * 49])
    logits = torch.zeros(2, 50).masked_fill(mask & (torch.arange(2) == 1)[:, None], 5.0)
    short, long = torch.nn.functional.softplus(torch.tensor(5.0)), torch.tensor(2.0).log()
    assert_close(per_token_bce(logits, torch.zeros(2), mask), (short + long) / 2)


def test_option_b_gives_gradient_to_record_tokens_only():
    logits = torch.tensor([[0.0, -1.0, 2.0, 1.0, 2.0, 1.0]])
    _, gradient = loss_and_gradient(logits, torch.tensor([1.0]), torch.ones(1, 6, dtype=torch.bool), 1.0)
    assert gradient[0].nonzero().flatten().tolist() == [0, 2, 4]  # of the two equal records, each for its own stretch


@pytest.mark.parametrize("omega", [0.0, 0.5, 1.0])
def test_a_saturated_false_positive_still_learns(omega):
    """BCE(max sigmoid(z)) taken in probabilities clamps here, with a gradient of exactly 0."""
    logits = torch.tensor([[20.0, 25.0, 18.0]])
    loss, gradient = loss_and_gradient(logits, torch.tensor([0.0]), torch.ones(1, 3, dtype=torch.bool), omega)
    assert loss > 20 and abs(gradient.sum().item() - 1.0) < 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_computed_in_float32(dtype):
    logits, labels, mask = example(dtype)
    for omega in (0.0, 0.4, 1.0):
        loss, gradient = loss_and_gradient(logits, labels, mask, omega)
        assert loss.dtype == torch.float32 and gradient.dtype == dtype
        assert torch.equal(loss, annealed_bce(logits.float(), labels, mask, omega))


def test_labels_may_be_bool_or_integer():
    logits, _, mask = example()
    want = per_token_bce(logits, torch.tensor([1.0, 0, 1, 0]), mask)
    for labels in (torch.tensor([True, False, True, False]), torch.tensor([1, 0, 1, 0])):
        assert torch.equal(per_token_bce(logits, labels, mask), want)


GOOD = {"logits": torch.zeros(2, 3), "labels": torch.zeros(2), "mask": torch.ones(2, 3, dtype=torch.bool)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logits": torch.zeros(2, 3, 1)}, r"harm_logits must be floating \[batch, time\]"),
        ({"logits": torch.zeros(2, 3, dtype=torch.long)}, "harm_logits must be floating"),
        ({"labels": torch.zeros(2, 1)}, "labels must be one number per sequence"),
        ({"labels": torch.zeros(3)}, "labels must be one number per sequence"),
        ({"labels": torch.tensor([0.0, 1.5])}, r"labels must be in \[0, 1\].*1.5"),
        ({"labels": torch.tensor([0.0, -1.0])}, r"labels must be in \[0, 1\]"),
        ({"labels": torch.tensor([0.0, float("nan")])}, r"labels must be in \[0, 1\]"),
        ({"mask": torch.ones(2, 3)}, "mask must be bool"),
        ({"mask": torch.ones(2, 2, dtype=torch.bool)}, "mask must be bool"),
        ({"mask": torch.zeros(2, 3, dtype=torch.bool)}, "marks no position"),
    ],
)
@pytest.mark.parametrize("omega", [0.0, 0.5, 1.0])
def test_wrong_inputs_are_refused_with_a_reason(change, message, omega):
    arguments = {**GOOD, **change}
    with pytest.raises(ValueError, match=message):
        annealed_bce(arguments["logits"], arguments["labels"], arguments["mask"], omega)


@pytest.mark.parametrize("omega", [-0.01, 1.01, float("nan"), float("inf")])
def test_omega_outside_the_unit_interval_is_refused(omega):
    with pytest.raises(ValueError, match="omega must be in"):
        annealed_bce(GOOD["logits"], GOOD["labels"], GOOD["mask"], omega)


def next_token_reference(logits, ids, mask):
    means = []
    for row, tokens, on in zip(logits.double().tolist(), ids.tolist(), mask.tolist(), strict=True):
        losses = []
        for t in range(1, len(tokens)):
            if on[t]:
                top = max(row[t - 1])
                log_sum = top + float(
                    torch.tensor([value - top for value in row[t - 1]], dtype=torch.float64).exp().sum().log()
                )
                losses.append(log_sum - row[t - 1][tokens[t]])
        if losses:
            means.append(sum(losses) / len(losses))
    return sum(means) / len(means)


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_next_token_loss_is_the_definition(scale):
    torch.manual_seed(0)
    logits, ids = scale * torch.rand(4, 6, 11, dtype=torch.float64), torch.randint(11, (4, 6))
    _, _, mask = example()
    assert_close(next_token_loss(logits, ids, mask).item(), next_token_reference(logits, ids, mask), rtol=1e-12, atol=0)
    assert_close(next_token_loss(logits.float(), ids, mask).item(), next_token_reference(logits.float(), ids, mask))
    half = next_token_loss((logits / scale).bfloat16(), ids, mask)
    assert half.dtype == torch.float32
    assert torch.equal(half, next_token_loss((logits / scale).bfloat16().float(), ids, mask))


def test_next_token_loss_gradient():
    _, _, mask = example()
    ids = torch.randint(5, (4, 6), generator=torch.Generator().manual_seed(0))
    logits = torch.randn(4, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: next_token_loss(z, ids, mask), logits)
    next_token_loss(logits, ids, mask).backward()
    moved = logits.grad.abs().sum(-1) > 0
    want = torch.zeros_like(mask)
    want[:, :-1] = mask[:, 1:]  # exactly the positions *before* a marked token
    assert torch.equal(moved, want)


def test_next_token_loss_ignores_garbage_where_nothing_is_predicted():
    torch.manual_seed(0)
    logits, ids = torch.randn(2, 4, 7), torch.randint(7, (2, 4))
    mask = torch.tensor([[False, True, True, False], [False, False, True, True]])
    want = next_token_loss(logits, ids, mask)
    logits[0, 2:], logits[1, 0], logits[:, 3] = float("nan"), float("inf"), float("nan")
    assert torch.equal(next_token_loss(logits, ids, mask), want)


def test_one_token_texts_have_no_next_token_and_cost_nothing():
    logits = torch.randn(2, 1, 7, requires_grad=True)
    loss = next_token_loss(logits, torch.zeros(2, 1, dtype=torch.long), torch.ones(2, 1, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0.0 and (logits.grad == 0).all()


@pytest.mark.parametrize(
    ("logits", "ids", "mask", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 3).long(), torch.ones(2, 3).bool(), "lm_logits must be floating"),
        (torch.zeros(2, 3, 5).long(), torch.zeros(2, 3).long(), torch.ones(2, 3).bool(), "lm_logits must be floating"),
        (torch.zeros(2, 3, 5), torch.zeros(2, 2).long(), torch.ones(2, 3).bool(), "input_ids must be integer"),
        (torch.zeros(2, 3, 5), torch.zeros(2, 3), torch.ones(2, 3).bool(), "input_ids must be integer"),
        (torch.zeros(2, 3, 5), torch.zeros(2, 3).long(), torch.ones(2, 3), "mask must be bool"),
        (torch.zeros(2, 3, 5), torch.zeros(2, 3).long(), torch.zeros(2, 3).bool(), "marks no position"),
    ],
)
def test_next_token_loss_refuses_wrong_inputs(logits, ids, mask, message):
    with pytest.raises(ValueError, match=message):
        next_token_loss(logits, ids, mask)


# --- next-token loss in chunks


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_in_chunks_it_is_the_same_loss_with_the_same_gradient(rows):
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 50)
    hidden = torch.randn(3, 7, 8, requires_grad=True)
    ids, mask = torch.randint(50, (3, 7)), torch.rand(3, 7) > 0.4
    mask[2] = False
    whole = next_token_loss(head(hidden), ids, mask)
    wanted = torch.autograd.grad(whole, [hidden, head.weight])
    chunked = next_token_loss_in_chunks(head, hidden, ids, mask, rows)
    assert_close(chunked, whole)
    assert_close(torch.autograd.grad(chunked, [hidden, head.weight]), wanted)


def test_in_chunks_no_more_rows_of_logits_stand_at_once():
    seen = []

    def head(hidden):
        seen.append(tuple(hidden.shape))
        return hidden @ torch.ones(8, 50)

    hidden, ids = torch.randn(2, 9, 8, requires_grad=True), torch.randint(50, (2, 9))
    next_token_loss_in_chunks(head, hidden, ids, torch.ones(2, 9, dtype=torch.bool), 5).backward()
    assert {shape[1] for shape in seen} == {5, 1} and sum(shape[1] for shape in seen) == 2 * 16  # made twice


def test_in_chunks_a_first_position_alone_gives_nothing():
    mask = torch.zeros(1, 4, dtype=torch.bool)
    mask[0, 0] = True
    hidden = torch.randn(1, 4, 8, requires_grad=True)
    loss = next_token_loss_in_chunks(torch.nn.Linear(8, 5), hidden, torch.zeros(1, 4).long(), mask, 2)
    loss.backward()
    assert loss == 0 and not hidden.grad.any()
    with pytest.raises(ValueError, match="rows >= 1"):
        next_token_loss_in_chunks(torch.nn.Linear(8, 5), hidden, torch.zeros(1, 4).long(), mask, 0)
