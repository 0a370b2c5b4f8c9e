"""Directions of features as vectors of edits: the same values as the numbers themselves, under an id of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from support.models.families import D_MODEL, FAMILIES, build_model, build_tokenizer
from support.models.saes import save_sae, weights_of
from support.models.tensors import assert_same_bits
from transparent_llm import RemoteTransparentLlm
from transparent_llm.analysis.metrics import projection
from transparent_llm.analysis.sweep_cells import Cell, Sweep
from transparent_llm.errors import IndexOutOfRangeError, InvalidRequestError, NotSupportedError
from transparent_llm.interventions import (
    Intervention,
    Vector,
    add,
    clamp,
    clamp_feature,
    ffn_out,
    literal,
    project,
    residual_out,
    sae_feature,
    set_to,
)
from transparent_llm.testing import serve_in_process
from transparent_llm_server import TransformerLensTransparentLlm

ROWS = [[1, 2, 3, 4, 5, 6], [7, 8, 9]]
WEIGHTS = weights_of("standard", D_MODEL, 40)
TRANSCODER = weights_of("transcoder", D_MODEL, 40)


def model(folder: Path, changed: float = 0.0) -> TransformerLensTransparentLlm:
    weights = WEIGHTS | {"b_enc": WEIGHTS["b_enc"] + changed}
    save_sae(folder / "sae", "standard", weights)
    save_sae(folder / "transcoder", "transcoder", TRANSCODER)
    saes = {
        "res": (folder / "sae", "residual_out.0"),
        "trans": (folder / "transcoder", "residual_after_attn.1", "ffn_out.1"),
    }
    return TransformerLensTransparentLlm(
        "gpt2", hf_model=build_model(FAMILIES["gpt2"]()), tokenizer=build_tokenizer(), saes=saes
    )


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> TransformerLensTransparentLlm:
    return model(tmp_path_factory.mktemp("saes"))


@pytest.fixture(scope="module")
def remote(llm: TransformerLensTransparentLlm) -> Iterator[RemoteTransparentLlm]:
    with serve_in_process(llm.copy()) as found:
        yield found


def edits(of: Vector, other: Vector, of_ffn: Vector) -> list[Intervention]:
    return [
        add(residual_out(0), of, 4.0, positions=[1, -1]),
        project(residual_out(0), of - other, 0.0, positions="all"),
        clamp(residual_out(0), other, -1.0, 1.0, positions="last"),
        add(ffn_out(1), of_ffn, -2.0, positions="all"),
    ]


FEATURES = edits(sae_feature("res", 3), sae_feature("res", -1, "encoder"), sae_feature("trans", 5))
LITERALS = edits(
    literal(WEIGHTS["W_dec"][3]), literal(WEIGHTS["W_enc"][:, -1].contiguous()), literal(TRANSCODER["W_dec"][5])
)


def test_steering_is_an_edit_with_the_row_of_the_decoder(
    llm: TransformerLensTransparentLlm, remote: RemoteTransparentLlm
) -> None:
    values = []
    for each, made in ((llm, FEATURES), (llm, LITERALS), (remote, FEATURES), (remote, LITERALS)):
        each.run_tokens(ROWS, edits=made)
        values.append((each.residual_out(0).clone(), each.logits().clone()))
    for stream, logits in values[1:]:
        assert_same_bits(stream, values[0][0])
        assert_same_bits(logits, values[0][1])
    remote.run_tokens(ROWS)
    assert not torch.equal(remote.logits(), values[0][1])


def test_a_run_is_named_by_the_digest_of_the_autoencoder(
    llm: TransformerLensTransparentLlm, remote: RemoteTransparentLlm, tmp_path: Path
) -> None:
    def named(each: RemoteTransparentLlm, vector: Vector) -> str:
        each.run_tokens(ROWS, edits=[add(residual_out(0), vector, 4.0, positions="all")])
        return each.run_id()

    feature = sae_feature("res", 3)
    ids = [named(remote, feature), named(remote, literal(WEIGHTS["W_dec"][3])), named(remote, sae_feature("res", 4))]
    assert named(remote, feature) == named(remote, sae_feature("res", 3 - 40)) == ids[0]
    with serve_in_process(model(tmp_path, changed=0.5)) as other:  # the same model, and the same row of the decoder
        assert other.describe().digest == remote.describe().digest
        ids.append(named(other, feature))
    assert len(set(ids)) == 4


def test_steering_raises_the_feature(llm: TransformerLensTransparentLlm) -> None:
    def activation(factor: float) -> float:
        twin = llm.copy()
        twin.run_tokens(ROWS, edits=[add(residual_out(0), sae_feature("res", 3, "encoder"), factor, positions=[2])])
        return float(twin.feature_activations("res", [3], positions=[2])["activations"][0, 0])

    least, more = activation(1.0), activation(2.0)
    length = WEIGHTS["W_enc"][:, 3].double().square().sum()
    assert more - least == pytest.approx(float(length), rel=1e-3)


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("standard", {}),
        ("gated", {}),
        ("topk", {"rescale_acts_by_decoder_norm": True}),
        ("standard", {"normalize_activations": "layer_norm"}),
    ],
)
def test_a_feature_is_clamped_and_the_error_stays(
    tmp_path: Path, architecture: str, settings: dict[str, object]
) -> None:
    """The reconstruction with the clamped activation, by its definition, and the same error as before."""
    weights = weights_of(architecture, D_MODEL, 40)
    save_sae(tmp_path, architecture, weights, **settings)
    saes = {"s": (tmp_path, "residual_out.0")}
    llm = TransformerLensTransparentLlm(
        "gpt2", hf_model=build_model(FAMILIES["gpt2"]()), tokenizer=build_tokenizer(), saes=saes
    )
    llm.run_tokens(ROWS)
    before = llm.residual_out(0)
    activations = llm.feature_activations("s", range(40))["activations"].double()
    feature = int(activations.sum(dim=0).argmax())
    with serve_in_process(llm.copy()) as remote:
        for each in (llm, remote):
            edit = clamp_feature(residual_out(0), "s", feature, 7.0, 7.0, positions="all", rows=[0])
            each.run_tokens(ROWS, edits=[edit])
            after = each.residual_out(0)
            row = weights["W_dec"][feature].double()
            row = row / row.norm() if settings.get("rescale_acts_by_decoder_norm") else row
            scale = before[0].double().std(dim=1, keepdim=True) if "normalize_activations" in settings else 1.0
            wanted = before[0].double() + (7.0 - activations[:, feature])[:, None] * row * scale
            torch.testing.assert_close(after[0], wanted.float(), rtol=1e-4, atol=1e-4)
            assert_same_bits(after[1, :3], before[1, :3])
            assert "clampfeature residual_out(0)" in str(each.effects())


def test_a_clamp_within_its_bounds_changes_nothing(llm: TransformerLensTransparentLlm) -> None:
    twin = llm.copy()
    twin.run_tokens(ROWS, edits=[clamp_feature(residual_out(0), "res", 3, 0.0, float("inf"), positions="all")])
    assert twin.effects()[0].changed == 0


def test_sweeps_take_features(remote: RemoteTransparentLlm) -> None:
    """As a direction that is measured, and as what is added."""
    remote.run_tokens(ROWS)

    def swept(vector: Vector) -> list[torch.Tensor]:
        templates = (add(residual_out(0), vector, 3.0, positions=[0]),)
        metrics = (projection(residual_out(1), vector, pos=-1),)
        cells = tuple(Cell(positions=(pos,)) for pos in range(3))
        return [part.values for part in remote.sweep(Sweep(templates, cells, metrics))]

    for got, wanted in zip(swept(sae_feature("res", 7)), swept(literal(WEIGHTS["W_dec"][7])), strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("is_remote", [False, True])
def test_what_cannot_be_is_refused(
    llm: TransformerLensTransparentLlm, remote: RemoteTransparentLlm, is_remote: bool
) -> None:
    each = remote if is_remote else llm.copy()
    for vector, kind, words in (
        (sae_feature("none", 3), InvalidRequestError, r"no sparse autoencoder 'none'; there are \['res', 'trans'\]"),
        (sae_feature("res", 40), IndexOutOfRangeError, "feature 40 is out of range"),
        (sae_feature("res", 2**31), IndexOutOfRangeError, "feature 2147483648 is out of range"),
    ):
        with pytest.raises(kind, match=words):
            each.run_tokens(ROWS, edits=[set_to(residual_out(0), vector, positions="all")])
    for site, name, kind, words in (
        (
            residual_out(1),
            "res",
            InvalidRequestError,
            r"of residual_out\(0\), the edit is at residual_out\(1\)",
        ),
        (ffn_out(1), "trans", NotSupportedError, "is a transcoder, which does not write what it reads"),
    ):
        with pytest.raises(kind, match=words):
            each.run_tokens(ROWS, edits=[clamp_feature(site, name, 0, 1.0, 1.0, positions="all")])
    with pytest.raises(InvalidRequestError, match="the first must not be over the second"):
        clamp_feature(residual_out(0), "res", 0, 2.0, 1.0, positions="all")
    for arguments, words in ((("", 3), "must be the name"), (("res", 3, "up"), "must be one of 'decoder', 'encoder'")):
        with pytest.raises(InvalidRequestError, match=words):
            sae_feature(*arguments)
