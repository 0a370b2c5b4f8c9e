"""Words to ids and back: the same from every backend, and the same as a run has them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from support.models.families import SPECIAL_TOKEN, build_tokenizer
from support.servers.backends import Backend
from transparent_llm import TransparentLlm, errors

FAMILY = "gpt2"
TEXT = "The river comes down"


@pytest.fixture
def llm(backend: Backend) -> TransparentLlm:
    return backend.open(FAMILY)


def plain_ids(text: str) -> list[int]:
    return list(build_tokenizer()(text)["input_ids"])


def test_tokens_are_those_of_a_run(llm: TransparentLlm) -> None:
    tokens = llm.to_tokens(TEXT)
    assert (tokens.dtype, tokens.ndim) == (torch.int64, 1)
    assert llm.to_str_tokens(TEXT) == llm.tokens_to_strings(tokens)
    llm.run([TEXT])
    assert torch.equal(llm.tokens()[0], tokens)


def test_the_beginning_token_is_put_before_where_it_is_asked_for(llm: Any) -> None:
    (bos,) = plain_ids(SPECIAL_TOKEN)
    assert llm.to_tokens(TEXT, add_bos=True).tolist() == [bos, *plain_ids(TEXT)]
    assert llm.to_tokens(TEXT, add_bos=False).tolist() == plain_ids(TEXT)
    assert llm.to_tokens(SPECIAL_TOKEN + TEXT).tolist() == [bos, *plain_ids(TEXT)]
    for add_bos in (None, True, False):
        llm.run([TEXT], add_bos=add_bos)
        assert torch.equal(llm.tokens()[0], llm.to_tokens(TEXT, add_bos=add_bos))
    assert llm.to_str_tokens(TEXT, add_bos=True)[0] == SPECIAL_TOKEN


def test_one_token(llm: TransparentLlm) -> None:
    one = llm.to_tokens(TEXT, add_bos=False)[-1]
    (text,) = llm.tokens_to_strings(one[None])
    assert llm.to_single_token(text) == int(one)
    several = llm.to_tokens(TEXT, add_bos=False)
    with pytest.raises(errors.InvalidRequestError) as refused:
        llm.to_single_token(TEXT)
    assert str(refused.value).startswith(f"{TEXT!r} is {len(several)} tokens, not one: ")
    assert repr(llm.tokens_to_strings(several[:1])[0]) in str(refused.value)


@pytest.mark.parametrize("read", ["to_tokens", "to_str_tokens", "to_single_token"])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (["a", "b"], "text must be one string, got list"),
        (7, "text must be one string, got int 7"),
        ("\ud800", "text is not valid Unicode at character 0: surrogates not allowed"),
    ],
    ids=["a list", "a number", "half a character"],
)
def test_what_is_no_text_is_refused(read: str, text: Any, said: str, llm: TransparentLlm) -> None:
    with pytest.raises(errors.InvalidRequestError) as refused:
        getattr(llm, read)(text)
    assert str(refused.value) == said


def test_an_empty_text_is_no_token(llm: TransparentLlm) -> None:
    with pytest.raises(errors.InvalidRequestError, match="'' is no token: give text"):
        llm.to_single_token("")


def test_a_text_longer_than_the_context_is_refused(llm: TransparentLlm) -> None:
    with pytest.raises(errors.TooLargeError, match="the model's context is 64; shorten it or split it"):
        llm.to_tokens("river " * 200)


def test_add_bos_is_yes_or_no(llm: Any) -> None:
    for ask in (lambda: llm.to_tokens(TEXT, add_bos="no"), lambda: llm.run([TEXT], add_bos="no")):
        with pytest.raises(errors.InvalidRequestError) as refused:
            ask()
        assert str(refused.value) == "add_bos must be True, False or None, got str 'no'"


def test_a_run_is_described_id_beside_text(llm: TransparentLlm) -> None:
    llm.run([TEXT, "A mill"])
    lines = str(llm.describe_run()).splitlines()
    assert lines[0] == "run of 2 sentences"
    assert lines[1].split() == ["row", "pos", "id", "token"]
    ids = [*llm.to_tokens(TEXT).tolist(), *llm.to_tokens("A mill").tolist()]
    assert [int(line.split()[2]) for line in lines[2:]] == ids
    assert repr(llm.to_str_tokens(TEXT)[-1]) in lines[1 + len(llm.to_tokens(TEXT))]
