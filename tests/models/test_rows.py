"""No row's values depend on the rows beside it: in its own batch, or in a forward pass that several runs share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from support.models.families import D_VOCAB, FAMILIES, N_CTX, ROPE_BORDER, build_model, build_tokenizer
from support.models.reference import HuggingFaceReference
from support.servers.engines import SOON, held
from support.servers.polling import wait_until
from support.servers.servers import running
from transparent_llm import RemoteTransparentLlm, TransparentLlm
from transparent_llm.errors import TooLargeError
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.models.forward.regimes import Regimes

MAX_ERROR = 1e-5


def row(length: int, seed: int = 0) -> list[int]:
    """Some tokens, of those that the tokenizer defines."""
    generator = torch.Generator().manual_seed(seed + 100 * length)
    return torch.randint(1, D_VOCAB - 20, (length,), generator=generator).tolist()


ROWS = [row(5), row(N_CTX), row(ROPE_BORDER), row(3), row(ROPE_BORDER + 1), row(2 * ROPE_BORDER)]


def _rope(family: str, **parameters: Any) -> Callable[[], PreTrainedConfig]:
    def make() -> PreTrainedConfig:
        config = FAMILIES[family]()
        config.rope_parameters = {**config.rope_parameters, **parameters}
        return config

    return make


_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": ROPE_BORDER}
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": ROPE_BORDER,
}
MODELS = {
    **FAMILIES,
    "llama_dynamic": _rope("llama_gqa", rope_type="dynamic", factor=2.0),
    "llama_linear": _rope("llama_gqa", rope_type="linear", factor=2.0),
    "llama_yarn": _rope("llama_gqa", **_YARN),
    "llama_llama3": _rope("llama_gqa", **_LLAMA3),
    "gpt_oss_yarn": _rope("gpt_oss", **_YARN),
}


@cache
def plain(name: str) -> HuggingFaceReference:
    return HuggingFaceReference(build_model(MODELS[name]()), build_tokenizer(), prepend_bos=False)


@cache
def loaded(name: str) -> TransformerLensTransparentLlm:
    return TransformerLensTransparentLlm(name, hf_model=build_model(MODELS[name]()), tokenizer=build_tokenizer())


def reads(llm: TransparentLlm) -> list[Callable[[TransparentLlm, int, int], torch.Tensor]]:
    """Values of one row, less its padding, of every kind."""
    last = llm.model_info().n_layers - 1
    return [
        lambda llm, i, n: llm.logits()[i, :n],
        lambda llm, i, n: llm.residual_after_attn(0)[i, :n],
        lambda llm, i, n: llm.residual_out(last)[i, :n],
        lambda llm, i, n: llm.ffn_out(last)[i, :n],
        lambda llm, i, n: llm.attention_matrix(i, last, 1)[:n, :n],
        lambda llm, i, n: llm.attention_output(i, last, n - 1, 2),
        lambda llm, i, n: llm.decomposed_attn(i, last)[n - 1, :n],
        lambda llm, i, n: llm.neuron_activations(i, last, n - 1),
        lambda llm, i, n: llm.decomposed_ffn_out(i, last, n - 1),
    ]


def assert_row(got: TransparentLlm, i: int, wanted: TransparentLlm, n: int) -> None:
    """Row `i` has the values of the only row of another."""
    for read in reads(got):
        assert (read(got, i, n) - read(wanted, 0, n)).abs().max().item() <= MAX_ERROR


@pytest.mark.parametrize("name", MODELS)
def test_a_row_in_a_batch_is_the_row_alone_in_plain_hugging_face(name: str) -> None:
    llm, wanted = loaded(name).copy(), plain(name)
    llm.run_tokens(ROWS)
    for i, tokens in enumerate(ROWS):
        wanted.run_tokens([tokens])
        assert_row(llm, i, wanted, len(tokens))


@pytest.mark.parametrize("name", MODELS)
def test_the_padding_token_within_a_row_is_a_token_like_any_other(name: str) -> None:
    llm, wanted = loaded(name).copy(), plain(name)
    pad = llm.describe().pad_token_id
    rows = [[pad, 5, pad, 9, pad, pad], [pad], row(ROPE_BORDER)]
    llm.run_tokens(rows)
    for i, tokens in enumerate(rows):
        wanted.run_tokens([tokens])
        assert_row(llm, i, wanted, len(tokens))


@pytest.mark.parametrize("name", MODELS)
def test_runs_that_share_a_forward_pass_keep_their_own_values(name: str) -> None:
    llm, wanted = loaded(name), plain(name)
    batches = [[row(4, 1)], [row(N_CTX, 2), row(6, 3)], [row(ROPE_BORDER + 3, 4)]]
    found = llm.run_batches([llm.prepare(rows) for rows in batches])
    for rows, values in zip(batches, found, strict=True):
        for i, tokens in enumerate(rows):
            wanted.run_tokens([tokens])
            logits = values.logits().tensor()[i, : len(tokens)]
            assert (logits - wanted.logits()[0]).abs().max().item() <= MAX_ERROR


@pytest.mark.parametrize("name", ["phi3_longrope", "gpt2"])
def test_a_long_prompt_of_one_client_moves_nothing_of_anothers(name: str) -> None:
    """Through a server whose runs share forward passes; a third client finds the run under its own name."""
    short, long, wanted = [row(5)], [row(N_CTX)], plain(name)
    with running(serving={name: loaded(name)}, shared_positions=10 * N_CTX) as server:
        clients = [RemoteTransparentLlm(server.address, timeout_s=60) for _ in range(3)]
        with held(server._engine):
            threads = [
                threading.Thread(target=client.run_tokens, args=(rows,))
                for client, rows in zip(clients, (short, long), strict=False)
            ]
            for thread in threads:
                thread.start()
            wait_until(lambda: server._engine.queued_runs == 2, SOON)
        for thread in threads:
            thread.join(SOON)
        clients[2].run_tokens(short)
        for client, rows in zip(clients, (short, long, short), strict=True):
            wanted.run_tokens(rows)
            assert_row(client, 0, wanted, len(rows[0]))
            client.close()


def test_padding_beyond_a_pass_of_its_own_reads_as_numbers() -> None:
    llm = loaded("phi3_longrope").copy()
    llm.run_tokens(ROWS)
    for value in (llm.logits(), llm.residual_out(1), llm.decomposed_attn(0, 1), llm.attention_matrix(0, 1, 1)):
        assert torch.isfinite(value).all()


def test_equal_lengths_and_one_regime_run_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    llm, passes = loaded("phi3_longrope").copy(), []
    forward = llm.bridged.forward
    monkeypatch.setattr(llm.bridged, "forward", lambda t, m: (passes.append(list(t.shape)), forward(t, m))[1])
    llm.run_tokens([row(3), row(ROPE_BORDER)])
    llm.run_tokens([row(ROPE_BORDER + 1), row(N_CTX)])
    llm.run_tokens([row(3), row(N_CTX), row(4)])
    assert passes == [[2, ROPE_BORDER], [2, N_CTX], [2, 4], [1, N_CTX]]


def test_dynamic_frequencies_are_never_reached() -> None:
    llm = loaded("llama_dynamic").copy()
    with pytest.raises(TooLargeError, match=f"the model's context is {N_CTX}"):
        llm.run_tokens([row(N_CTX + 1)])


def test_what_shares_a_pass_is_told_with_what_was_measured() -> None:
    described = loaded("phi3_longrope").describe()
    assert described.conventions["rows"] == (
        f"rows of one batch share forward passes with padding on the right, those of at most {ROPE_BORDER} tokens "
        "apart from longer ones, which the model treats differently"
    )
    (check,) = [check for check in described.parity if check.name == "row_vs_row_alone"]
    assert check.passed


def _by_the_longest(rotary: Any, x: torch.Tensor, position_ids: torch.Tensor) -> Any:
    """Positions stretched by the longest row, as nobody's configuration tells."""
    return type(rotary).forward(rotary, x, position_ids.float() * (1 + position_ids.max() / 20))


def secretive() -> PreTrainedModel:
    """A Llama that looks at the longest row of its batch."""
    model = build_model(FAMILIES["llama_gqa"]())
    model.model.rotary_emb.forward = partial(_by_the_longest, model.model.rotary_emb)
    return model


def test_a_model_that_is_measured_to_look_at_the_longest_row_runs_each_alone() -> None:
    llm = TransformerLensTransparentLlm("secretive", hf_model=secretive(), tokenizer=build_tokenizer())
    assert (
        llm.describe()
        .conventions["rows"]
        .startswith("every row has a forward pass of its own: beside a longer one a row was measured to differ by ")
    )
    wanted = HuggingFaceReference(secretive(), build_tokenizer(), prepend_bos=False)
    llm.run_tokens(ROWS)
    for i, tokens in enumerate(ROWS):
        wanted.run_tokens([tokens])
        assert_row(llm, i, wanted, len(tokens))


def test_a_rotary_embedding_that_nobody_knows_is_run_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ROPE_INIT_FUNCTIONS, "novel", ROPE_INIT_FUNCTIONS["linear"])
    config = _rope("llama_gqa", rope_type="novel", factor=2.0)()
    llm = TransformerLensTransparentLlm("novel", hf_model=build_model(config), tokenizer=build_tokenizer())
    assert llm.describe().conventions["rows"] == (
        "every row has a forward pass of its own: nothing is known of its rotary embedding (novel)"
    )


@pytest.mark.parametrize(
    ("parameters", "lengths", "groups"),
    [
        ({"rope_type": "default"}, [1, 5000, 3], [[0, 1, 2]]),
        ({"rope_type": "longrope", "original_max_position_embeddings": 4096}, [4096, 4097, 1, 9000], [[0, 2], [1, 3]]),
        (
            {
                "full": {"rope_type": "longrope", "original_max_position_embeddings": 8},
                "sliding": {"rope_type": "longrope", "original_max_position_embeddings": 16},
            },
            [8, 9, 17, 16],
            [[0], [1, 3], [2]],
        ),
        ({"full": {"rope_type": "default"}, "sliding": {"rope_type": "other"}}, [1, 1], [[0], [1]]),
        (None, [1, 2], [[0, 1]]),
    ],
)
def test_rows_are_grouped_by_regime(parameters: Any, lengths: list[int], groups: list[list[int]]) -> None:
    regimes = Regimes.of(type("Config", (), {"rope_parameters": parameters}))
    assert regimes.groups(lengths) == groups
    assert regimes.may_share(lengths) == (len(groups) == 1)
    assert all(regimes.may_share([lengths[i] for i in group]) for group in groups)
