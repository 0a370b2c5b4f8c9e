"""Greedy generations by plain Hugging Face, row by row, and what ends them by its definition."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

from support.models.reference import HuggingFaceReference

Fields = dict[str, Any]
DEFAULT_MAX_NEW_TOKENS = 20


def prompt_ids(reference: HuggingFaceReference, prompts: list[Any]) -> list[list[int]]:
    """Token ids of each row."""
    found = []
    for prompt in prompts:
        if isinstance(prompt, str):
            reference.run([prompt])
            prompt = reference.tokens()[0].tolist()
        found.append(list(prompt))
    return found


def greedy(model: PreTrainedModel, reference: HuggingFaceReference, generation: Fields) -> list[list[int]]:
    """The new tokens of each row."""
    stops = generation.get("stop", [])
    n = generation.get("max_new_tokens", DEFAULT_MAX_NEW_TOKENS)
    found = []
    for ids in prompt_ids(reference, generation["prompts"]):
        given = torch.tensor([ids])
        ended = model.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=n, do_sample=False)
        found.append(_stopped(reference, ended[0, len(ids) :].tolist(), stops))
    return found


def _stopped(reference: HuggingFaceReference, new: list[int], stops: list[Any]) -> list[int]:
    """As far as the first token with which one of these has come."""
    for n in range(1, len(new) + 1):
        text = "".join(reference.tokens_to_strings(torch.tensor(new[:n])))
        if new[n - 1] in stops or any(stop in text for stop in stops if isinstance(stop, str)):
            return new[:n]
    return new
