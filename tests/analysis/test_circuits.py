"""Circuits of heads beside plain Hugging Face weights in float64, TransformerLens, and what a trained model does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest
import torch
from transformer_lens import FactoredMatrix
from transformer_lens.model_bridge import TransformerBridge

from support.models.families import (
    D_MODEL,
    FAMILIES,
    N_HEADS,
    N_LAYERS,
    build_model,
    build_tokenizer,
    hybrid_config,
    save,
)
from support.servers.servers import running, served, tiny
from support.servers.stub import stub
from transparent_llm import RemoteTransparentLlm
from transparent_llm.analysis.circuits import OF_HEAD, composition_scores
from transparent_llm.errors import (
    IndexOutOfRangeError,
    InvalidRequestError,
    NotFoundError,
    NotSupportedError,
    TooLargeError,
)
from transparent_llm.wire._gen import circuits_pb2
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.demo import DEMO_MODEL
from transparent_llm_server.models.derived.model import ModelValues
from transparent_llm_server.models.forward.cancellation import AbandonedError, cancellable
from transparent_llm_server.models.placement.quantization import _is_here

TESTED = ("gpt2", "gpt_neox_sequential", "llama_gqa", "qwen3", "gemma", "phi3", "falcon", "bloom")
"""Conv1D; fused head by head; grouped queries; heads wider than d_model together; fused in a row; shared by all."""

KINDS = ("q", "k", "v")


class Plain(NamedTuple):
    """The weights of one head, as the family's own module has them, in float64."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    o: torch.Tensor


def plain_heads(family: str) -> tuple[list[list[Plain]], torch.Tensor, torch.Tensor]:
    """[layer][head], embedding and unembedding, of a model that nobody has touched."""
    model = build_model(FAMILIES[family]())
    config, state = model.config, {name: tensor.double() for name, tensor in model.state_dict().items()}
    n_kv = getattr(config, "num_key_value_heads", None) or N_HEADS
    n_kv = 1 if family == "falcon" else n_kv
    layers = []
    for layer in range(N_LAYERS):
        own = {name.split(f".{layer}.", 1)[1]: w for name, w in state.items() if f".{layer}." in name}
        layers.append(_heads(family, own, n_kv))
    embedding, unembedding = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    return layers, embedding.detach().double(), unembedding.detach().double()


def _heads(family: str, own: dict[str, torch.Tensor], n_kv: int) -> list[Plain]:
    found = []
    if family == "gpt2":
        q, k, v = own["attn.c_attn.weight"].T.chunk(3)
        out = own["attn.c_proj.weight"]
    elif family in ("gpt_neox_sequential", "bloom"):
        name = "attention" if family == "gpt_neox_sequential" else "self_attention"
        fused = own[f"{name}.query_key_value.weight"].reshape(N_HEADS, 3, -1, D_MODEL)
        q, k, v = (fused[:, part].reshape(-1, D_MODEL) for part in range(3))
        out = own[f"{name}.dense.weight"].T
    elif family == "falcon":
        fused = own["self_attention.query_key_value.weight"]
        q, (k, v) = fused[:D_MODEL], fused[D_MODEL:].chunk(2)
        out = own["self_attention.dense.weight"].T
    elif family == "phi3":
        fused = own["self_attn.qkv_proj.weight"]
        q, (k, v) = fused[:D_MODEL], fused[D_MODEL:].chunk(2)
        out = own["self_attn.o_proj.weight"].T
    else:
        q, k, v = (own[f"self_attn.{part}_proj.weight"] for part in "qkv")
        out = own["self_attn.o_proj.weight"].T
    d_head = out.shape[0] // N_HEADS
    for head in range(N_HEADS):
        kv = head // (N_HEADS // n_kv)
        rows, kv_rows = slice(head * d_head, (head + 1) * d_head), slice(kv * d_head, (kv + 1) * d_head)
        found.append(Plain(q[rows].T, k[kv_rows].T, v[kv_rows].T, out[rows]))
    return found


def composed(kind: str, first: Plain, second: Plain) -> float:
    """As the paper defines it, of whole matrices."""
    written = first.v @ first.o
    read = {"q": second.q @ second.k.T, "k": second.k @ second.q.T, "v": second.v @ second.o}[kind]
    return float((written @ read).norm() / (written.norm() * read.norm()))


@pytest.fixture(scope="module")
def remote() -> Iterator[RemoteTransparentLlm]:
    with served() as llm:
        yield llm


@pytest.mark.parametrize("family", TESTED)
def test_weights_and_scores_are_those_of_plain_weights(family: str) -> None:
    llm, (heads, embedding, unembedding) = tiny(family), plain_heads(family)
    state = torch.get_rng_state()
    for layer in range(N_LAYERS):
        for head in range(N_HEADS):
            for got, wanted in zip(llm.head_weights(layer, head), heads[layer][head], strict=True):
                assert torch.equal(got.double(), wanted), (layer, head)
    for kind in KINDS:
        scores = llm.composition_scores(kind).scores
        assert scores[1].isnan().all()
        assert scores[:, :, 0].isnan().all()
        wanted = torch.tensor([[composed(kind, first, second) for second in heads[1]] for first in heads[0]])
        torch.testing.assert_close(scores[0, :, 1], wanted, rtol=2e-6, atol=1e-7)
    copying = llm.copying_scores().scores
    for layer in range(N_LAYERS):
        for head in range(N_HEADS):
            eigenvalues = torch.linalg.eigvals(embedding @ heads[layer][head].v @ heads[layer][head].o @ unembedding.T)
            wanted_score = float(eigenvalues.real.sum() / eigenvalues.abs().sum())
            assert float(copying[layer, head]) == pytest.approx(wanted_score, abs=2e-5)
    matching = llm.copying_scores("qk").scores
    for layer in range(N_LAYERS):
        for head, of_head in enumerate(heads[layer]):
            whole = FactoredMatrix(embedding @ of_head.q, of_head.k.T @ embedding.T)
            for eigenvalues in (whole.eigenvalues, torch.linalg.eigvals(whole.AB)):
                wanted_score = float(eigenvalues.real.sum() / eigenvalues.abs().sum())
                assert float(matching[layer, head]) == pytest.approx(wanted_score, abs=2e-5)
    assert torch.equal(torch.get_rng_state(), state), "reading takes nothing from the caller's generator"


def test_a_head_computes_its_attention_scores_with_them(demo: TransformerLensTransparentLlm) -> None:
    """From the input to a pattern, with the norm and the biases that are not in the weights (GPT-2 rotates nothing)."""
    llm = demo.copy()
    llm.run(["What say you, gentle friend?"])
    state = dict(llm.bridged._hf.state_dict())
    prefix = next(name for name in state if name.endswith("h.2.ln_1.weight")).removesuffix("ln_1.weight")
    norm = torch.nn.functional.layer_norm(
        llm.residual_in(2)[0], (128,), state[f"{prefix}ln_1.weight"], state[f"{prefix}ln_1.bias"], 1e-5
    )
    fused = next(tensor for name, tensor in state.items() if "h.2.attn" in name and name.endswith("c_attn.bias"))
    weights = llm.head_weights(2, 1)
    q, k = norm @ weights.q + fused[32:64], norm @ weights.k + fused[128 + 32 : 128 + 64]
    scores = (q @ k.T / 32**0.5).masked_fill(torch.ones(len(q), len(q)).triu(1).bool(), -torch.inf)
    torch.testing.assert_close(scores.softmax(dim=-1), llm.attention_matrix(0, 2, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_they_are_those_of_transformer_lens(demo: TransformerLensTransparentLlm, kind: str) -> None:
    bridge = TransformerBridge.boot_transformers(str(DEMO_MODEL), device="cpu", trust_remote_code=False)
    wanted = bridge.all_composition_scores(kind.upper()).scores
    ours = demo.composition_scores(kind).scores
    torch.testing.assert_close(ours.nan_to_num(nan=0.0), wanted, rtol=1e-4, atol=1e-6)


def test_the_previous_token_head_composes_with_the_induction_head(demo: TransformerLensTransparentLlm) -> None:
    """Of all heads, that one writes most of what the induction head's keys read, and no other reads it as much."""
    scores = demo.composition_scores("k").scores.nan_to_num()
    into = scores[:, :, 1, 0].flatten().sort(descending=True)
    assert int(into.indices[0]) == 0  # layer 0, head 0
    assert float(into.values[0]) > 1.3 * float(into.values[1])
    assert int(scores[0, 0].flatten().argmax()) == 4  # layer 1, head 0
    assert demo.copying_scores().top(1)[0][:2] == (1, 0)


# Of a server


def test_a_remote_model_says_the_same_without_a_run(remote: RemoteTransparentLlm) -> None:
    local = tiny()
    for kind in KINDS:
        assert torch.equal(remote.composition_scores(kind).scores.nan_to_num(), _filled(local, kind))
    for circuit in OF_HEAD:
        assert torch.equal(remote.copying_scores(circuit).scores, local.copying_scores(circuit).scores)
    assert (remote.copying_scores("qk").scores != remote.copying_scores().scores).all()
    for got, wanted in zip(remote.head_weights(-1, 2), local.head_weights(1, -2), strict=True):
        assert torch.equal(got, wanted)


def _filled(llm: Any, kind: str) -> torch.Tensor:
    scores: torch.Tensor = llm.composition_scores(kind).scores.nan_to_num()
    return scores


def test_a_part_has_the_bits_of_the_whole_and_its_own_layers(demo: TransformerLensTransparentLlm) -> None:
    whole = demo.composition_scores("v").scores
    with served(serving={"demo": demo}) as llm:
        for each in (demo, llm):
            part = each.composition_scores("v", layers=slice(1, 3), later_layers=slice(-1, None))
            assert torch.equal(part.scores, whole[1:3, :, 3:])
            assert [first[0] for first, _, _ in part.top(100)] != [0] * 32
            assert {first[0] for first, _, _ in part.top(100)} == {1, 2}
            assert {second[0] for _, second, _ in part.top(100)} == {3}


def test_what_cannot_be_is_said_with_its_numbers(remote: RemoteTransparentLlm) -> None:
    for llm in (remote, tiny()):
        with pytest.raises(IndexOutOfRangeError, match="head 4 is out of range: valid indices are 0 to 3"):
            llm.head_weights(0, 4)
        with pytest.raises(IndexOutOfRangeError, match="layer -3 is out of range"):
            llm.head_weights(-3, 0)
        with pytest.raises(InvalidRequestError, match='kind must be one of "q", "k", "v", got \'o\''):
            llm.composition_scores("o")
        with pytest.raises(InvalidRequestError, match='circuit must be one of "ov", "qk", got \'q\''):
            llm.copying_scores("q")
        with pytest.raises(InvalidRequestError, match="layers must be a slice"):
            llm.composition_scores("q", layers=1)  # type: ignore[arg-type]  # what is tested
        with pytest.raises(InvalidRequestError, match="its step is -1"):
            llm.composition_scores("q", later_layers=slice(None, None, -1))


def test_a_block_that_cuts_is_refused(remote: RemoteTransparentLlm) -> None:
    with remote.reading(d_model=slice(0, 8)):
        for ask in (remote.composition_scores, remote.copying_scores, lambda: remote.head_weights(0, 0)):
            with pytest.raises(InvalidRequestError, match="this reading block cuts d_model"):
                ask()


def test_more_work_than_a_server_does_is_refused_and_a_part_is_not(demo: TransformerLensTransparentLlm) -> None:
    work = 4 * 32 * 32 * (128 + 2 * 32) * 4  # of a pair of layers
    with served(serving={"demo": demo}, max_read_work=2 * work) as llm:
        with pytest.raises(TooLargeError, match=f"this read is {6 * work} multiply-adds.*fewer layers"):
            llm.composition_scores("q")
        part = llm.composition_scores("q", later_layers=slice(0, 2)).scores
    assert torch.equal(part[:1, :, 1], demo.composition_scores("q").scores[:1, :, 1])


def test_an_index_that_is_absent_is_asked_for() -> None:
    with running() as server, grpc.insecure_channel(server.address) as channel:
        with pytest.raises(grpc.RpcError, match="HeadWeights needs layer, head"):
            list(stub(channel).HeadWeights(circuits_pb2.HeadWeightsRequest()))
        with pytest.raises(grpc.RpcError, match="kind 9 is not known"):
            list(stub(channel).CompositionScores(circuits_pb2.CompositionScoresRequest(kind=9)))  # type: ignore[arg-type]


# Of a model in this process


def test_work_is_in_steps_and_ends_where_nobody_waits(demo: TransformerLensTransparentLlm) -> None:
    values = ModelValues(demo.bridged)
    for value in (values.composition_scores("k"), values.copying_scores("qk")):
        (piece,) = value.pieces(1)
        next(iter(piece.steps()))()
        with cancellable(lambda: False), pytest.raises(AbandonedError):
            value.tensor()  # what is left


def test_weights_that_are_edited_meanwhile_give_no_scores() -> None:
    model = build_model(FAMILIES["llama_gqa"]())
    llm = TransformerLensTransparentLlm("edited", model, build_tokenizer())
    before = llm.composition_scores("k").scores
    value = ModelValues(llm.bridged).composition_scores("k")
    with torch.no_grad():
        model.model.layers[1].self_attn.k_proj.weight[:16] *= -1.0
        model.model.layers[1].self_attn.k_proj.weight[0] += 3.0
    with pytest.raises(NotFoundError, match="weights were changed"):
        value.tensor()
    after = llm.composition_scores("k").scores
    assert torch.equal(after[0, :, 1, 2:], before[0, :, 1, 2:])
    assert (after[0, :, 1, :2] != before[0, :, 1, :2]).all()


def test_a_model_without_such_weights_says_so() -> None:
    hybrid = TransformerLensTransparentLlm("hybrid", build_model(hybrid_config()), build_tokenizer())
    for ask in (lambda: hybrid.composition_scores("q"), hybrid.copying_scores, lambda: hybrid.head_weights(0, 0)):
        with pytest.raises(NotSupportedError, match="layer 0 of Lfm2ForCausalLM: it has no attention heads"):
            ask()
    with pytest.raises(NotSupportedError, match="_Nothing has no weights of heads"):
        composition_scores(_Nothing())


@pytest.mark.skipif(not _is_here("torchao"), reason="torchao is not installed")
@pytest.mark.filterwarnings("default")  # of that package
def test_a_quantized_model_says_so(tmp_path: Path) -> None:
    folder = str(save("llama_gqa", tmp_path / "llama"))
    llm = TransformerLensTransparentLlm(folder, quantization="torchao-int8")
    for ask in (lambda: llm.composition_scores("q"), llm.copying_scores, lambda: llm.head_weights(0, 0)):
        with pytest.raises(NotSupportedError, match="it is quantized, or offloaded"):
            ask()


class _Nothing:
    """Of another kind."""

    def model_info(self) -> Any:
        return tiny().model_info()


def test_a_head_that_writes_nothing_has_no_scores() -> None:
    model = build_model(FAMILIES["llama_gqa"]())
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight[:, :16] = 0.0
    llm = TransformerLensTransparentLlm("silent", model, build_tokenizer())
    assert llm.composition_scores("v").scores[0, 0, 1].isnan().all()
    assert not llm.composition_scores("v").scores[0, 1:, 1].isnan().any()
    assert llm.copying_scores().scores.isnan().nonzero().tolist() == [[0, 0]]
    assert llm.copying_scores().top(8)[-1][:2] == (0, 0)


def test_the_picture_is_a_heat_map_of_heads(demo: TransformerLensTransparentLlm) -> None:
    found = demo.composition_scores("k")
    html = found._repr_html_()
    assert html.count("<tr>") == 17  # a head and a row for each
    assert "K-composition of heads" in html
    assert "head 0.0, later head 1.0" in html
    frame = found.to_pandas()
    best = frame.loc[frame["score"].idxmax()]
    assert [int(best[axis]) for axis in ("layer", "head", "later_layer", "later_head")] == [1, 2, 2, 2]
    assert found.top(1)[0][:2] == ((1, 2), (2, 2))
