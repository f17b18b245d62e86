"""Answers to the exercises of chapter 03, right and wrong."""

import math

import torch


def bias_for(rate):
    return math.log(rate / (1 - rate))


def the_rate(rate):
    return rate


def upside_down(rate):
    return math.log((1 - rate) / rate)


def only_log(rate):
    return math.log(rate)


def base_two(rate):
    return math.log2(rate / (1 - rate))


def a_vector(rate):
    return torch.full((8,), math.log(rate / (1 - rate)))


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


def score_at_the_end(scores, attention_mask):
    positions = torch.arange(scores.shape[1], device=scores.device)
    last = (positions * attention_mask.long()).argmax(dim=1)
    return scores.gather(1, last[:, None]).squeeze(1)


def last_column(scores, attention_mask):
    return scores[:, -1]


def count_the_ones(scores, attention_mask):
    last = attention_mask.long().sum(dim=1) - 1
    return scores.gather(1, last[:, None]).squeeze(1)


def highest(scores, attention_mask):
    return scores.masked_fill(attention_mask == 0, -torch.inf).amax(dim=1)


def mean(scores, attention_mask):
    return (scores * attention_mask).sum(dim=1) / attention_mask.sum(dim=1)


def keeps_a_dimension(scores, attention_mask):
    return score_at_the_end(scores, attention_mask)[:, None]


def minus(scores, attention_mask):
    last = (torch.arange(scores.shape[1]) * attention_mask).argmax(dim=1) - 1
    return scores.gather(1, last[:, None]).squeeze(1)


CASES = {
    "bias_for": {
        "solution": bias_for,
        "wrong": {
            "the rate": the_rate,
            "upside down": upside_down,
            "log of the rate": only_log,
            "base two": base_two,
            "one per neuron": a_vector,
        },
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
        },
    },
    "score_at_the_end": {
        "solution": score_at_the_end,
        "wrong": {
            "the last column": last_column,
            "counts the ones": count_the_ones,
            "the highest": highest,
            "the mean": mean,
            "a column vector": keeps_a_dimension,
            "one too early": minus,
        },
    },
}
