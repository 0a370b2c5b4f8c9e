"""What sparse autoencoders find in a run, beside their definitions in float64; here and on a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from features.reference import decoded, encoded
from support.models.families import D_MODEL, FAMILIES, build_model, build_tokenizer
from support.models.saes import ARCHITECTURES, identity, save_sae, weights_of
from support.models.tensors import assert_same_bits
from transparent_llm import RemoteTransparentLlm
from transparent_llm.analysis.features import feature_activations, features
from transparent_llm.errors import IndexOutOfRangeError, InvalidRequestError, NotSupportedError
from transparent_llm.interventions import head, residual_out, scale, zero
from transparent_llm.testing import serve_in_process
from transparent_llm_server import TransformerLensTransparentLlm

ROWS = [[1, 2, 3, 4, 5, 6], [7, 8, 9]]
D_SAE, K = 40, 5
Made = tuple[TransformerLensTransparentLlm, Path]


def place(root: Path, architecture: str) -> tuple[str | Path, ...]:
    sites = ("residual_after_attn.1", "ffn_out.1") if "transcoder" in architecture else ("residual_out.0",)
    return root / architecture, *sites


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """One model with an autoencoder of each architecture, and an identity at all places that are not the stream."""
    root = tmp_path_factory.mktemp("saes")
    for architecture in ARCHITECTURES:
        save_sae(root / architecture, architecture, weights_of(architecture, D_MODEL, D_SAE))
    save_sae(root / "identity", "standard", identity(D_MODEL))
    places = {each: place(root, each) for each in ARCHITECTURES}
    places |= {"identity": (root / "identity", "residual_out.1"), "attn": (root / "identity", "attn_out.0")}
    save_sae(root / "normed", "standard", weights_of("standard", D_MODEL, D_SAE), normalize_activations="layer_norm")
    save_sae(root / "scaled", "topk", weights_of("topk", D_MODEL, D_SAE), rescale_acts_by_decoder_norm=True)
    save_sae(
        root / "constant",
        "standard",
        weights_of("standard", D_MODEL, D_SAE),
        normalize_activations="constant_norm_rescale",
    )
    places |= {name: (root / name, "residual_out.0") for name in ("normed", "scaled", "constant")}
    llm = TransformerLensTransparentLlm(
        "gpt2", hf_model=build_model(FAMILIES["gpt2"]()), tokenizer=build_tokenizer(), saes=places
    )
    llm.run_tokens(ROWS)
    return llm, root


@pytest.fixture
def llm(made: Made) -> TransformerLensTransparentLlm:
    found = made[0].copy()
    found.run_tokens(ROWS)
    return found


@pytest.fixture(scope="module")
def remote(made: Made) -> Iterator[RemoteTransparentLlm]:
    with serve_in_process(made[0].copy()) as found:
        found.run_tokens(ROWS)
        yield found


def read(llm: TransformerLensTransparentLlm, architecture: str, row: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What it reads and what it is to write, without padding."""
    n = len(ROWS[row])
    if "transcoder" in architecture:
        return llm.residual_after_attn(1)[row, :n], llm.ffn_out(1)[row, :n]
    stream = llm.residual_out(0)[row, :n]
    return stream, stream


# Values


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_each_architecture_by_its_definition(made: Made, llm: TransformerLensTransparentLlm, architecture: str) -> None:
    weights = load_file(made[1] / architecture / "sae_weights.safetensors")
    for row in (0, 1):
        x, wanted = read(llm, architecture, row)
        activations = encoded(x, architecture, weights)
        assert 0 < int((activations > 0).sum()) < activations.numel()
        got = llm.feature_activations(architecture, range(D_SAE), row)["activations"]
        torch.testing.assert_close(got, activations.float(), rtol=1e-4, atol=1e-4)
        found, top = llm.features(architecture, row, k=K), activations.topk(K)
        torch.testing.assert_close(found.activations, top.values.float(), rtol=1e-4, atol=1e-4)
        assert torch.equal(found.ids, torch.where(top.values > 0, top.indices, -1))
        assert torch.equal(found.active, (activations > 0).sum(dim=1))
        error = wanted.double() - decoded(activations, x, weights)
        torch.testing.assert_close(found.error_norm, error.norm(dim=1).float(), rtol=1e-4, atol=1e-4)
        spread = (wanted.double() - wanted.double().mean(dim=0)).square().sum(dim=1)
        explained = 1 - error.square().sum(dim=1) / spread
        torch.testing.assert_close(found.explained, explained.float(), rtol=1e-3, atol=1e-3)


def test_an_identity_is_relu_of_the_value(llm: TransformerLensTransparentLlm) -> None:
    for name, value in (
        ("identity", llm.residual_out(1)[0]),
        ("attn", llm.residual_after_attn(0) - llm.residual_in(0)),
    ):
        value = value if value.ndim == 2 else value[0]
        found = llm.feature_activations(name, range(D_MODEL))["activations"]
        torch.testing.assert_close(found, value.relu(), rtol=1e-5, atol=1e-6)
        negative = llm.features(name, k=1).error_norm
        torch.testing.assert_close(negative, (-value).relu().norm(dim=1), rtol=1e-4, atol=1e-5)


def test_what_is_normalized_is_put_back(made: Made, llm: TransformerLensTransparentLlm) -> None:
    x = llm.residual_out(0)[0].double()
    mean, deviation = x.mean(dim=1, keepdim=True), x.std(dim=1, keepdim=True)
    length = x.norm(dim=1, keepdim=True) / D_MODEL**0.5
    for name, given, back in (
        ("normed", (x - mean) / (deviation + 1e-5), lambda y: y * deviation + mean),
        ("constant", x / length, lambda y: y * length),
    ):
        weights = load_file(made[1] / name / "sae_weights.safetensors")
        activations = encoded(given, "standard", weights)
        found = llm.features(name, k=K)
        torch.testing.assert_close(found.activations, activations.topk(K).values.float(), rtol=1e-4, atol=1e-4)
        error = x - back(decoded(activations, given, weights))
        torch.testing.assert_close(found.error_norm, error.norm(dim=1).float(), rtol=1e-4, atol=1e-4)


def test_topk_in_units_of_decoder_rows(made: Made, llm: TransformerLensTransparentLlm) -> None:
    weights = load_file(made[1] / "scaled" / "sae_weights.safetensors")
    x, norms = llm.residual_out(0)[0], weights["W_dec"].double().norm(dim=1)
    hidden = ((x.double() - weights["b_dec"].double()) @ weights["W_enc"].double() + weights["b_enc"]) * norms
    top = hidden.topk(3)
    found = llm.features("scaled", k=3)
    assert torch.equal(found.ids, top.indices)
    torch.testing.assert_close(found.activations, top.values.float(), rtol=1e-4, atol=1e-4)
    activations = torch.zeros_like(hidden).scatter(1, top.indices, top.values) / norms
    error = x - decoded(activations, x, weights)
    torch.testing.assert_close(found.error_norm, error.norm(dim=1).float(), rtol=1e-4, atol=1e-4)


def test_features_are_those_of_the_edited_run(llm: TransformerLensTransparentLlm) -> None:
    before = llm.features("identity", k=3)
    llm.run_tokens(ROWS, edits=[scale(residual_out(1), 3.0, positions=[1])])
    after = llm.features("identity", k=3)
    torch.testing.assert_close(after.activations[1], 3 * before.activations[1], rtol=1e-5, atol=1e-5)
    assert torch.equal(after.activations[0], before.activations[0])
    llm.run_tokens(ROWS, edits=[zero(residual_out(1), positions="all")])
    nothing = llm.features("identity", k=3)
    assert nothing.ids.eq(-1).all()
    assert nothing.active.eq(0).all()
    assert nothing.explained.isnan().all()  # nothing varies


def test_padding_has_no_features(llm: TransformerLensTransparentLlm) -> None:
    found = features(llm, 1, "jumprelu", (2, 3, -1), 2)
    alone = llm.copy()
    alone.run_tokens(ROWS[1:])
    wanted = alone.features("jumprelu", k=2)
    assert torch.equal(found.ids[[0, 2]], wanted.ids[[2, 2]])
    torch.testing.assert_close(found.explained[0], wanted.explained[2])
    assert found.ids[1].tolist() == [-1, -1]
    assert int(found.active[1]) == -1
    for part in (found.activations[1], found.error_norm[1], found.explained[1]):
        assert part.isnan().all()
    assert feature_activations(llm, 1, "jumprelu", (0,), (5,)).isnan().all()


# Here and on a server


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_server_gives_the_same(
    llm: TransformerLensTransparentLlm, remote: RemoteTransparentLlm, architecture: str
) -> None:
    for row in (0, 1):
        here, there = llm.features(architecture, row, k=K), remote.features(architecture, row, k=K)
        for name in here.tensors:
            assert_same_bits(there[name], here[name])
        ids, places = (3, -1, 0), (-1, 0)
        there_too = remote.feature_activations(architecture, ids, row, positions=places)["activations"]
        assert_same_bits(there_too, llm.feature_activations(architecture, ids, row, positions=places)["activations"])


def test_which_there_are(llm: TransformerLensTransparentLlm, remote: RemoteTransparentLlm) -> None:
    saes = {sae.name: sae for sae in remote.saes()}
    assert remote.saes() == llm.saes()
    assert {*ARCHITECTURES, "identity"} < saes.keys()
    assert (saes["gated"].site, saes["gated"].output_site) == ("residual_out.0", "residual_out.0")
    transcoder = saes["skip_transcoder"]
    assert (transcoder.site, transcoder.output_site) == ("residual_after_attn.1", "ffn_out.1")
    assert (transcoder.d_in, transcoder.d_sae, transcoder.d_out) == (D_MODEL, D_SAE, D_MODEL)
    assert len({sae.digest for sae in saes.values()}) == len(saes) - 1  # the identity is there twice
    assert all(len(sae.digest) == 64 for sae in saes.values())
    weights = sum(sae.weight_bytes for sae in saes.values())
    assert 0 < weights < remote.describe().weight_bytes
    assert "skip_transcoder of residual_after_attn.1, 40 features" in str(remote.describe())


def test_a_block_that_cuts_is_refused(remote: RemoteTransparentLlm) -> None:
    with remote.reading(pos=slice(-1, None)):
        for ask in (lambda: remote.features("gated"), lambda: remote.feature_activations("gated", [0])):
            with pytest.raises(InvalidRequestError, match="this reading block cuts pos"):
                ask()
    assert remote.features("gated").ids.shape == (6, 10)


def test_what_people_see(llm: TransformerLensTransparentLlm) -> None:
    found = llm.features("standard", k=3)
    best, token = int(found.ids[2, 0]), llm.tokens_to_strings(llm.tokens()[0])[2]
    line = next(line for line in str(found).splitlines() if line.split()[:1] == ["2"])
    assert f"{best}: {found.activations[2, 0]:.3g}" in line
    assert token.strip() in line
    assert f"{best}: " in found._repr_html_()
    assert found._repr_html_().startswith("<table>")


@pytest.mark.parametrize("is_remote", [False, True])
def test_what_cannot_be_is_refused(
    llm: TransformerLensTransparentLlm, remote: RemoteTransparentLlm, is_remote: bool
) -> None:
    asked = remote if is_remote else llm
    with pytest.raises(InvalidRequestError, match=r"no sparse autoencoder 'none'; there are \['standard', "):
        asked.features("none")
    with pytest.raises(InvalidRequestError, match="several sparse autoencoders, name one"):
        asked.features()
    with pytest.raises(InvalidRequestError, match="k must be 0 to 40, the number of features, got 41"):
        asked.features("gated", k=41)
    with pytest.raises(IndexOutOfRangeError, match="feature 40 is out of range"):
        asked.feature_activations("gated", [40])
    with pytest.raises(IndexOutOfRangeError, match="pos 6 is out of range"):
        asked.features("gated", positions=[6])
    with pytest.raises(IndexOutOfRangeError, match="batch_i 2 is out of range"):
        asked.features("gated", 2)
    with pytest.raises(InvalidRequestError, match="list of integers"):
        asked.feature_activations("gated", "3")


def test_a_model_without_any_says_so() -> None:
    plain = TransformerLensTransparentLlm("gpt2", hf_model=build_model(FAMILIES["gpt2"]()), tokenizer=build_tokenizer())
    plain.run_tokens(ROWS)
    assert plain.saes() == ()
    with pytest.raises(NotSupportedError, match="has no sparse autoencoder: load one with --sae"):
        plain.features()


def test_the_only_one_needs_no_name(tmp_path: Path) -> None:
    folder = save_sae(tmp_path, "standard", identity(D_MODEL))
    saes = {"one": (folder, "residual_in.0")}
    only = TransformerLensTransparentLlm(
        "gpt2", hf_model=build_model(FAMILIES["gpt2"]()), tokenizer=build_tokenizer(), saes=saes
    )
    only.run_tokens(ROWS)
    with serve_in_process(only) as far:
        far.run_tokens(ROWS)
        assert_same_bits(far.features(k=2).ids, only.features("one", k=2).ids)


def test_heads_one_and_all(tmp_path: Path) -> None:
    """An autoencoder of z, before the output weights: what an edit of the same site meets."""
    model = build_model(FAMILIES["gpt2"]())
    d_head = D_MODEL // model.config.n_head
    save_sae(tmp_path / "all", "standard", identity(D_MODEL), reshape_activations="hook_z")
    save_sae(tmp_path / "one", "standard", identity(d_head))
    saes = {"all": (tmp_path / "all", "head.1"), "one": (tmp_path / "one", "head.1.1")}
    llm = TransformerLensTransparentLlm("gpt2", hf_model=model, tokenizer=build_tokenizer(), saes=saes)
    llm.run_tokens(ROWS)
    every = llm.feature_activations("all", range(D_MODEL))["activations"]
    assert_same_bits(every[:, d_head : 2 * d_head], llm.feature_activations("one", range(d_head))["activations"])
    assert every.sum() > 0
    llm.run_tokens(ROWS, edits=[zero(head(1, 1), positions="all")])
    assert llm.features("one", k=1).active.eq(0).all()
    assert llm.features("all", k=1).active.gt(0).all()
