"""The soak in small: two hundred fuzzed streams, and the soak itself tested against guards that are broken."""

import pytest

from benchmarks import soak
from constclf_lib.streaming import token_stream


def test_two_hundred_fuzzed_streams_release_nothing_too_far():
    found = soak.soak(200)
    assert found["wrong"] == [] and found["level"] and found["streams"] >= 200
    assert all(found["kinds"].values()) and set(found["ended"]) == {"released", "halted_output", "error", "closed"}


@pytest.mark.parametrize("gate", ["gates", "types"])
def test_a_guard_that_never_halts_is_found_out(monkeypatch, gate):
    monkeypatch.setattr(f"constclf_lib.guard.{gate}.crosses", lambda risk, threshold: False)
    found = soak.soak(60)
    assert bool(found["wrong"]) == (gate == "gates")  # the prompt's side has no part in the soak


def test_a_guard_that_fails_open_is_found_out(monkeypatch):
    monkeypatch.setattr(token_stream, "probability", lambda logit: 0.0)  # NaN, and everything else, is harmless
    assert any("swallowed" in line for line in soak.soak(60)["wrong"])
