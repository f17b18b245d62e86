"""Training a linear probe on states that are known."""

import pytest
import torch
from tiny_models import causal_lm

from constclf_lib.models import LinearProbe
from constclf_lib.training import StatesCollator, train_probe


def rows(count=60, seed=0):
    """Noise, and in harmful rows one loud direction from some token on."""
    generator = torch.Generator().manual_seed(seed)
    states, labels = [], []
    for i in range(count):
        x = torch.randn(int(torch.randint(5, 20, (), generator=generator)), 32, generator=generator)
        if i % 2:
            x[len(x) // 2 :, 0] += 6
        states.append(x)
        labels.append(bool(i % 2))
    return states, labels


@pytest.mark.parametrize("loss", ["softmax", "spread", "per_token", "cumulative_max", "annealed"])
@pytest.mark.parametrize("width", [1, 3])
def test_every_loss_learns(loss, width):
    probe = LinearProbe.for_model(causal_lm(), layers=[1], width=width)
    probe, log = train_probe(probe, *rows(), steps=120, loss=loss, lr=2e-2)
    states, labels = rows(seed=1)
    highest = torch.tensor([probe(x).max().item() for x in states])
    assert highest[1::2].mean() > highest[0::2].mean() + 1 and log


def test_the_same_seed_gives_the_same_probe():
    first, second = (train_probe(LinearProbe.for_model(causal_lm(), layers=[1]), *rows(), steps=10)[0] for _ in "ab")
    assert torch.equal(first.linear.weight, second.linear.weight)


def test_it_is_standardised_on_what_it_learns_from():
    states, labels = rows()
    states = [5 + 3 * x for x in states]
    probe, _ = train_probe(LinearProbe.for_model(causal_lm(), layers=[1]), states, labels, steps=1)
    x = torch.cat(states)
    torch.testing.assert_close(probe.mean, x.mean(0), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(probe.scale, 1 / x.std(0, correction=0), atol=1e-4, rtol=1e-4)


def test_collator():
    batch = StatesCollator()(
        [{"states": torch.ones(2, 3), "harmful": True}, {"states": torch.ones(4, 3), "harmful": 0}]
    )
    assert batch["states"].shape == (2, 4, 3) and batch["labels"].tolist() == [1, 0]
    assert batch["mask"].tolist() == [[True, True, False, False], [True] * 4]


def test_wrong_input_is_refused():
    probe, (states, labels) = LinearProbe.for_model(causal_lm(), layers=[1]), rows(4)
    for wrong in ((states, labels[:2]), ([x[:, :5] for x in states], labels), ([], [])):
        with pytest.raises(ValueError):
            train_probe(probe, *wrong, steps=1)
    with pytest.raises(ValueError, match="loss"):
        train_probe(probe, states, labels, steps=1, loss="hinge")
    states[1][0, 0] = float("inf")
    with pytest.raises(ValueError, match="not finite"):
        train_probe(LinearProbe.for_model(causal_lm(), layers=[1]), states, labels, steps=1)
