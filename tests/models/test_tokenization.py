"""Sentences to padded token ids and back."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from support.models.families import D_VOCAB, N_CTX, SPECIAL_TOKEN, build_tokenizer
from transparent_llm.errors import InvalidRequestError, TooLargeError
from transparent_llm_server.models.forward.tokenization import Tokenization

BOS = 0
N_KNOWN = D_VOCAB - 20
SENTENCES = ["The river comes down", "A mill", "every road becomes another road when you walk on"]


def tokenization(tokenizer: Any = None, *, wants_bos: bool = False, d_vocab: int = D_VOCAB) -> Tokenization:
    tokenizer = tokenizer or build_tokenizer()
    return Tokenization(tokenizer, wants_bos=wants_bos, n_ctx=N_CTX, d_vocab=d_vocab)


def tokenizer_that_adds_bos() -> PreTrainedTokenizerFast:
    tokenizer = build_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{SPECIAL_TOKEN} $A", special_tokens=[(SPECIAL_TOKEN, BOS)]
    )
    return tokenizer


def word_tokenizer(vocab: dict[str, int], decoder: decoders.Decoder) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words, as small as they come."""
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Whitespace(), decoder
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def plain_ids(sentence: str) -> list[int]:
    """What the tokenizer says with nothing put before."""
    return list(build_tokenizer()(sentence)["input_ids"])


def refusal(rows: list[list[int]]) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as refused:
        tokenization().check(rows)
    return refused.value


# BOS


def test_no_bos_is_put_before_a_sentence_where_the_model_wants_none() -> None:
    tokens = tokenization(wants_bos=False)
    assert tokens.encode(SENTENCES) == [plain_ids(sentence) for sentence in SENTENCES]
    assert not tokens.prepends_bos


def test_one_bos_is_put_before_every_sentence_where_the_model_wants_it() -> None:
    tokens = tokenization(wants_bos=True)
    assert tokens.encode(SENTENCES) == [[BOS, *plain_ids(sentence)] for sentence in SENTENCES]
    assert tokens.prepends_bos


@pytest.mark.parametrize("wants_bos", [True, False])
def test_a_tokenizer_that_adds_bos_itself_adds_the_only_one(wants_bos: bool) -> None:
    tokens = tokenization(tokenizer_that_adds_bos(), wants_bos=wants_bos)
    assert tokens.encode(["A mill"]) == [[BOS, *plain_ids("A mill")]]
    assert tokens.prepends_bos


def test_a_tokenizer_without_bos_puts_nothing_before() -> None:
    tokenizer = build_tokenizer()
    tokenizer.bos_token = None
    tokens = tokenization(tokenizer, wants_bos=True)
    assert tokens.encode(["A mill"]) == [plain_ids("A mill")]
    assert not tokens.prepends_bos


@pytest.mark.parametrize("adds_itself", [True, False])
@pytest.mark.parametrize("wants_bos", [True, False])
def test_a_text_that_starts_with_bos_gets_no_second_one(wants_bos: bool, adds_itself: bool) -> None:
    """A chat template, rendered, begins with it."""
    tokens = tokenization(tokenizer_that_adds_bos() if adds_itself else None, wants_bos=wants_bos)
    begun, rest = f"{SPECIAL_TOKEN}A mill", plain_ids("A mill")
    for add_bos in (None, True, False):
        assert tokens.encode([begun], add_bos) == [[BOS, *rest]]
        assert tokens.encode([SPECIAL_TOKEN + begun], add_bos) == [[BOS, BOS, *rest]]  # which somebody wrote twice


@pytest.mark.parametrize("adds_itself", [True, False])
@pytest.mark.parametrize("wants_bos", [True, False])
def test_whether_bos_is_put_before_can_be_said(wants_bos: bool, adds_itself: bool) -> None:
    tokens = tokenization(tokenizer_that_adds_bos() if adds_itself else None, wants_bos=wants_bos)
    rest = plain_ids("A mill")
    assert tokens.encode(["A mill"], True) == [[BOS, *rest]]
    assert tokens.encode(["A mill"], False) == [rest]
    assert tokens.encode(["A mill"]) == [[BOS, *rest] if wants_bos or adds_itself else rest]


def test_a_bos_that_there_is_not_cannot_be_put_before() -> None:
    tokenizer = build_tokenizer()
    tokenizer.bos_token = None
    with pytest.raises(InvalidRequestError, match="add_bos is True, but this model's tokenizer has no beginning token"):
        tokenization(tokenizer).encode(["A mill"], True)


def test_ids_that_fill_up_a_vocabulary_are_named() -> None:
    tokens = tokenization(d_vocab=D_VOCAB)
    n_known = len(build_tokenizer().get_vocab())
    assert n_known < D_VOCAB
    padded, mask = tokens.pad([[5, n_known, 6], [D_VOCAB - 1]])
    assert tokens.warnings(padded, mask) == (
        f"the tokenizer defines no token [{n_known}, {D_VOCAB - 1}]: such ids fill up the vocabulary, and the model "
        "was not trained on them",
    )
    assert tokens.warnings(*tokens.pad([[5, n_known - 1]])) == ()


def test_an_empty_sentence_is_its_bos_where_there_is_one() -> None:
    assert tokenization(wants_bos=True).encode([""]) == [[BOS]]


# Nothing is truncated or padded on the way


def test_settings_for_truncation_and_padding_of_a_published_tokenizer_do_not_apply() -> None:
    tokenizer = build_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(3)
    tokenizer.backend_tokenizer.enable_padding(direction="left", length=50)
    tokenizer.model_max_length, tokenizer.padding_side = 4, "left"
    assert tokenization(tokenizer).encode(SENTENCES) == [plain_ids(sentence) for sentence in SENTENCES]


# Padding


def test_rows_are_padded_on_the_right() -> None:
    tokens, mask = tokenization().pad([[5, 6, 7], [8], [9, 10]])
    assert tokens.tolist() == [[5, 6, 7], [8, BOS, BOS], [9, 10, BOS]]
    assert mask.tolist() == [[True, True, True], [True, False, False], [True, True, False]]
    assert (tokens.dtype, mask.dtype) == (torch.int64, torch.bool)


def test_a_token_that_looks_like_padding_is_a_token() -> None:
    tokens, mask = tokenization().pad([[BOS, 5, BOS, BOS], [BOS]])
    assert tokens.tolist() == [[BOS, 5, BOS, BOS], [BOS, BOS, BOS, BOS]]
    assert mask.tolist() == [[True] * 4, [True, False, False, False]]


def test_a_single_row_has_no_padding() -> None:
    tokens, mask = tokenization().pad([[3, 4]])
    assert tokens.tolist() == [[3, 4]]
    assert mask.all()


@pytest.mark.parametrize(
    ("pad", "eos", "d_vocab", "expected"),
    [
        ("a", "b", D_VOCAB, 65),
        (None, "b", D_VOCAB, 66),
        (None, None, D_VOCAB, 0),
        ("<pad>", "b", D_VOCAB, N_KNOWN),
        ("<pad>", "b", N_KNOWN, 0),
    ],
    ids=["pad", "eos", "neither", "added", "without_a_row"],
)
def test_positions_are_padded_with_a_token_that_the_model_has(
    pad: str | None, eos: str | None, d_vocab: int, expected: int
) -> None:
    tokenizer = build_tokenizer()
    tokenizer.pad_token, tokenizer.eos_token = pad, eos
    if pad == "<pad>":
        tokenizer.add_special_tokens({"pad_token": pad})
    assert tokenization(tokenizer, d_vocab=d_vocab).pad_token_id == expected


# Refusals


def test_a_run_of_nothing_is_refused() -> None:
    error = refusal([])
    assert error.message == "nothing to run: give at least one sentence"
    assert (error.reason, error.metadata) == ("EMPTY_INPUT", {})


def test_a_sentence_without_a_token_is_refused() -> None:
    with pytest.raises(InvalidRequestError) as refused:
        tokenization().encode(["A mill", ""])
    assert refused.value.message == "sentence 1 has no token; leave it out or give it text"
    assert (refused.value.reason, refused.value.metadata) == ("EMPTY_INPUT", {"sentence": "1"})


def test_a_sentence_longer_than_the_context_is_refused() -> None:
    error = refusal([[1], [1] * (N_CTX + 1)])
    assert type(error) is TooLargeError
    assert error.message == (
        "sentence 1 has 65 tokens, the model's context is 64; shorten it or split it, nothing is truncated silently"
    )
    assert (error.reason, error.metadata) == ("TOO_LONG", {"sentence": "1", "needed": "65", "allowed": "64"})


def test_a_sentence_that_fills_the_context_is_accepted() -> None:
    tokenization().check([[1] * N_CTX])


def test_bos_counts_towards_the_context() -> None:
    sentence = "a" * N_CTX  # one token each
    assert tokenization(wants_bos=False).encode([sentence]) == [[65] * N_CTX]
    with pytest.raises(TooLargeError, match=r"^sentence 0 has 65 tokens"):
        tokenization(wants_bos=True).encode([sentence])


@pytest.mark.parametrize("token", [D_VOCAB, -1, 2**31 - 1])
def test_a_token_outside_the_vocabulary_is_refused(token: int) -> None:
    error = refusal([[0], [D_VOCAB - 1, token]])
    assert error.message == f"token {token} is not in the vocabulary: ids are 0 to 499"
    assert (error.reason, error.metadata) == ("UNKNOWN_TOKEN", {"token": str(token), "size": "500"})


def test_a_token_outside_the_vocabulary_has_no_text() -> None:
    with pytest.raises(InvalidRequestError, match=r"^token 500 is not in the vocabulary: ids are 0 to 499$"):
        tokenization().strings([1, D_VOCAB])


# Back to text


def test_strings_of_a_sentence_are_the_sentence() -> None:
    tokens = tokenization()
    assert "".join(tokens.strings(plain_ids(SENTENCES[0]))) == SENTENCES[0]


def test_a_string_keeps_its_leading_space() -> None:
    tokens = tokenization()
    assert tokens.strings(plain_ids("the mill")) == ["the", " mill"]


def test_a_special_token_has_its_own_text() -> None:
    assert tokenization().strings([BOS]) == [SPECIAL_TOKEN]


def test_a_space_before_punctuation_is_kept_where_a_published_tokenizer_drops_it() -> None:
    tokenizer = word_tokenizer({"<unk>": 0, " .": 1, " n't": 2}, decoders.Fuse())
    tokenizer.clean_up_tokenization_spaces = True
    assert tokenizer.decode([1]) == "."
    assert tokenization(tokenizer, d_vocab=3).strings([1, 2]) == [" .", " n't"]


def test_no_ids_have_no_strings() -> None:
    assert tokenization().strings([]) == []


def test_parts_of_a_character_read_as_replacement_characters() -> None:
    tokens = tokenization()
    assert tokens.strings(plain_ids("é")) == ["\ufffd", "\ufffd"]
    assert tokens.strings(plain_ids("🙂")) == ["\ufffd"] * 4


@pytest.mark.parametrize("token", [N_KNOWN, D_VOCAB - 1])
def test_rows_that_the_tokenizer_does_not_know_are_unused(token: int) -> None:
    assert tokenization().strings([token]) == [f"<unused:{token}>"]


def test_the_last_token_that_the_tokenizer_knows_is_not_unused() -> None:
    (text,) = tokenization().strings([N_KNOWN - 1])
    assert text
    assert "unused" not in text


def test_an_added_token_is_not_unused() -> None:
    tokenizer = build_tokenizer()
    tokenizer.add_tokens(["<think>"])
    assert tokenization(tokenizer).strings([N_KNOWN, N_KNOWN + 1]) == ["<think>", f"<unused:{N_KNOWN + 1}>"]


def test_a_vocabulary_with_holes_is_read_by_its_ids_not_by_its_length() -> None:
    tokenizer = word_tokenizer({"<unk>": 0, "mill": 1, "road": 7}, decoders.Fuse())
    strings = tokenization(tokenizer, d_vocab=9).strings(range(9))
    assert strings == ["<unk>", "mill", *(f"<unused:{hole}>" for hole in range(2, 7)), "road", "<unused:8>"]


SENTENCEPIECE_DECODERS = {
    "metaspace": decoders.Metaspace(),
    "llama": decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    ),
}


@pytest.mark.parametrize("decoder", SENTENCEPIECE_DECODERS.values(), ids=SENTENCEPIECE_DECODERS.keys())
def test_a_string_of_a_sentencepiece_tokenizer_keeps_its_leading_space(decoder: decoders.Decoder) -> None:
    """As the tokenizers of Llama 2, Mistral and Phi-3 are made: their decoders take the first space of a text away."""
    tokenizer = word_tokenizer({"<unk>": 0, "▁mill": 1, "mill": 2, "▁": 3}, decoder)
    assert tokenization(tokenizer, d_vocab=4).strings([1, 2, 3]) == [" mill", "mill", " "]


@pytest.mark.parametrize("decoder", SENTENCEPIECE_DECODERS.values(), ids=SENTENCEPIECE_DECODERS.keys())
def test_a_text_behind_others_keeps_its_leading_space(decoder: decoders.Decoder) -> None:
    """Which stops of a generation are looked for in."""
    tokenizer = word_tokenizer({"<unk>": 0, "▁mill": 1, "mill": 2, "▁": 3}, decoder)
    assert tokenization(tokenizer, d_vocab=4).text([1, 2, 1]) == " millmill mill"


def test_a_byte_of_a_sentencepiece_tokenizer_reads_as_a_replacement_character() -> None:
    tokenizer = word_tokenizer({"<unk>": 0, "<0xC3>": 1, "<0x41>": 2}, SENTENCEPIECE_DECODERS["llama"])
    assert tokenization(tokenizer, d_vocab=3).strings([1, 2]) == ["\ufffd", "A"]


# Threads


def test_two_threads_may_use_it_at_once() -> None:
    tokens, barrier = tokenization(wants_bos=True), threading.Barrier(2)
    expected = tokens.encode(SENTENCES)
    texts = [tokens.strings(row) for row in expected]
    wrong: list[object] = []

    def work() -> None:
        barrier.wait(30)
        for _ in range(200):
            try:
                rows = tokens.encode(SENTENCES)
                if rows != expected or [tokens.strings(row) for row in rows] != texts:
                    wrong.append(rows)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert wrong == []
