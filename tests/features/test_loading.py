"""Folders of sparse autoencoders that are refused, with words; and what of them is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from support.models.families import D_MODEL, FAMILIES, build_model, build_tokenizer
from support.models.saes import identity, save_sae, weights_of
from transparent_llm.errors import (
    IndexOutOfRangeError,
    InvalidRequestError,
    ModelRefusedError,
    NotSupportedError,
    TransparentLlmError,
)
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.models.loading import memory
from transparent_llm_server.models.saes.settings import settings_from
from transparent_llm_server.models.saes.weights import SaeFolder

D_IN, D_SAE = 6, 10
Weights = dict[str, torch.Tensor]


def loaded(folder: Path, dtype: torch.dtype = torch.float32) -> tuple[Weights, str]:
    return SaeFolder(folder, "given").load(dtype, torch.device("cpu"))


def without(*names: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: each for name, each in weights.items() if name not in names}


def with_(**more: torch.Tensor) -> Callable[[Weights], Weights]:
    return lambda weights: weights | more


NAN = torch.full((D_SAE,), torch.nan)


@pytest.mark.parametrize(
    ("architecture", "change", "words"),
    [
        ("standard", without("b_enc"), "its sae_weights.safetensors lacks b_enc"),
        ("standard", with_(other=torch.ones(1)), "has other, of which it is not known what they do"),
        (
            "standard",
            with_(W_enc=torch.ones(D_SAE, D_IN)),
            r"shape \[10, 6\]; by cfg.json it must be \[6, 10\]",
        ),
        ("standard", with_(b_dec=torch.ones(D_SAE)), r"b_dec of shape \[10\]; by cfg.json it must be \[6\]"),
        ("standard", with_(b_enc=NAN), "has elements of b_enc that are not finite"),
        ("standard", with_(b_enc=-NAN / 0), "has elements of b_enc that are not finite"),
        ("standard", with_(b_enc=torch.ones(D_SAE, dtype=torch.int32)), "b_enc of type I32"),
        ("standard", with_(scaling_factor=2 * torch.ones(D_SAE)), "a scaling_factor other than 1"),
        ("jumprelu", without("threshold"), "has no threshold; jumprelu needs one of threshold, log_threshold"),
        ("jumprelu", with_(log_threshold=torch.ones(D_SAE)), "has threshold and log_threshold"),
        ("batchtopk", without("topk_threshold"), "has no threshold; batchtopk needs one of"),
        ("gated", without("r_mag"), "lacks r_mag"),
        ("skip_transcoder", without("W_skip"), "lacks W_skip"),
        (
            "transcoder",
            with_(W_dec=torch.ones(D_SAE, 5)),
            r"shape \[10, 5\]; by cfg.json it must be \[10, 6\]",
        ),
    ],
)
def test_weights_that_cannot_be(
    tmp_path: Path, architecture: str, change: Callable[[Weights], Weights], words: str
) -> None:
    right = weights_of(architecture, D_IN, D_SAE)
    save_sae(tmp_path, architecture, right)
    loaded(tmp_path)
    save_file(change(right), tmp_path / "sae_weights.safetensors")
    with pytest.raises(ModelRefusedError, match=words):
        loaded(tmp_path)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"architecture": "temporal"}, "says architecture = 'temporal'; it must be one of standard, topk, "),
        ({"architecture": 3}, "says architecture = 3"),
        ({"d_in": 0}, "says d_in = 0; it must be a number from 1"),
        ({"d_sae": 10**12}, "says d_sae = 1000000000000"),
        ({"d_sae": True}, "says d_sae = True"),
        ({"d_in": "6"}, "says d_in = '6'"),
        ({"apply_b_dec_to_input": "no"}, "says apply_b_dec_to_input = 'no'; it must be true or false"),
        ({"normalize_activations": "expected_average_only_in"}, "fold other ones into the weights"),
        ({"normalize_activations": True}, "says normalize_activations = True"),
        ({"activation_fn": "tanh-relu"}, "says activation_fn = 'tanh-relu'; it must be relu"),
        ({"activation_fn_str": "gelu"}, "says activation_fn = 'gelu'"),
        ({"finetuning_scaling_factor": True}, "says finetuning_scaling_factor = True"),
        ({"reshape_activations": "other"}, "says reshape_activations = 'other'"),
        ({"architecture": "topk"}, "says k = None; it must be a number from 1 to d_sae 10"),
        ({"architecture": "topk", "k": 11}, "says k = 11"),
        ({"rescale_acts_by_decoder_norm": True}, "must be false where the architecture is not topk"),
        ({"architecture": "transcoder"}, "says d_out = None"),
        ({"architecture": "transcoder", "d_out": 6, "apply_b_dec_to_input": True}, "must be false for a transcoder"),
        ({"architecture": "transcoder", "d_out": 6, "normalize_activations": "layer_norm"}, 'must be "none" for a'),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelRefusedError, match=words):
        settings_from({"d_in": D_IN, "d_sae": D_SAE, **settings}, "given")


def test_settings_before_version_6() -> None:
    old = {"d_in": D_IN, "d_sae": D_SAE, "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 4}}
    found = settings_from({**old, "normalize_activations": None}, "given")
    assert (found.architecture, found.k, found.subtracts_b_dec) == ("topk", 4, True)


@pytest.mark.parametrize("pickle", ["sae_weights.pt", "ae.pkl", "sae.bin", "params.npz"])
def test_pickles_are_never_opened(tmp_path: Path, pickle: str) -> None:
    save_sae(tmp_path, "standard", identity(D_IN))
    (tmp_path / "sae_weights.safetensors").rename(tmp_path / pickle)
    with pytest.raises(InvalidRequestError, match=rf"pickles or the like \({pickle}\), which can run code"):
        loaded(tmp_path)


def test_folders_that_hold_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="there is no folder 'absent'"):
        loaded(tmp_path / "absent")
    with pytest.raises(InvalidRequestError, match=r"has no cfg.json: it is empty"):
        loaded(tmp_path)
    save_sae(tmp_path, "standard", identity(D_IN))
    for text, words in (("[1]", "holds a list"), ("{", "is not JSON"), ("\xff", "is not JSON")):
        (tmp_path / "cfg.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(ModelRefusedError, match=words):
            loaded(tmp_path)


def test_files_that_are_damaged_or_elsewhere(tmp_path: Path) -> None:
    folder = save_sae(tmp_path / "sae", "standard", identity(D_IN))
    weights = folder / "sae_weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-5])
    with pytest.raises(ModelRefusedError, match="damaged"):
        loaded(folder)
    weights.unlink()
    (tmp_path / "other.safetensors").write_bytes(whole)
    weights.symlink_to(tmp_path / "other.safetensors")
    with pytest.raises(ModelRefusedError, match="leads outside"):
        loaded(folder)


def test_the_digest_is_of_all_that_is_read(tmp_path: Path) -> None:
    def digest(weights: Weights, **settings: Any) -> str:
        return loaded(save_sae(tmp_path, "standard", weights, **settings))[1]

    first = digest(identity(D_IN))
    assert digest(identity(D_IN)) == first
    changed = identity(D_IN)
    changed["b_dec"][0] = 1e-7
    assert len({first, digest(changed), digest(identity(D_IN), apply_b_dec_to_input=False)}) == 3


def test_halves_are_computed_in_float32(tmp_path: Path) -> None:
    halves = {name: each.bfloat16() for name, each in weights_of("standard", D_IN, D_SAE).items()}
    found, _ = loaded(save_sae(tmp_path, "standard", halves))
    assert {each.dtype for each in found.values()} == {torch.float32}
    assert torch.equal(found["W_enc"], halves["W_enc"].float())


def test_what_there_is_no_memory_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_sae(tmp_path, "standard", identity(D_IN))
    monkeypatch.setattr(memory, "_free_on_host", lambda: 100)
    with pytest.raises(TransparentLlmError, match=r"needs .* bytes of memory of the host"):
        loaded(folder)


@pytest.mark.parametrize(
    ("architecture", "sites", "kind", "words"),
    [
        ("standard", ("residual_out.9",), IndexOutOfRangeError, "layer 9 is out of range"),
        ("standard", ("head.0.9",), IndexOutOfRangeError, "head 9 is out of range"),
        ("standard", ("head.0.0",), InvalidRequestError, "is of 64 numbers, head.0.0 of this model has"),
        ("standard", ("neurons.0",), InvalidRequestError, "is of 64 numbers, neurons.0 of this model has"),
        ("standard", ("pattern.0",), InvalidRequestError, "no site of a sparse autoencoder: write KIND.LAYER"),
        ("standard", ("residual_out",), InvalidRequestError, "no site of a sparse autoencoder"),
        ("standard", ("residual_out.-1",), InvalidRequestError, "no site of a sparse autoencoder"),
        ("standard", ("residual_out.0.1",), InvalidRequestError, "no site of a sparse autoencoder"),
        ("standard", ("residual_out.0", "ffn_out.0"), InvalidRequestError, "is no transcoder, and has one site"),
        ("transcoder", ("residual_out.0",), InvalidRequestError, "is a transcoder, which needs two sites"),
        ("transcoder", ("residual_out.0", "neurons.0"), InvalidRequestError, "is of 64 numbers, neurons.0 of"),
        ("standard", (), InvalidRequestError, "needs a folder and a site"),
    ],
)
def test_sites_that_the_model_does_not_have(
    tmp_path: Path, architecture: str, sites: tuple[str, ...], kind: type[Exception], words: str
) -> None:
    folder = save_sae(tmp_path, architecture, weights_of(architecture, D_MODEL, D_SAE))
    with pytest.raises(kind, match=words):
        TransformerLensTransparentLlm(
            "gpt2",
            hf_model=build_model(FAMILIES["gpt2"]()),
            tokenizer=build_tokenizer(),
            saes={"given": (folder, *sites)},
        )


def test_a_parallel_block_has_no_stream_between_its_parts(tmp_path: Path) -> None:
    folder = save_sae(tmp_path, "standard", identity(D_MODEL))
    with pytest.raises(NotSupportedError, match="read the same stream"):
        TransformerLensTransparentLlm(
            "gptj",
            hf_model=build_model(FAMILIES["gptj"]()),
            tokenizer=build_tokenizer(),
            saes={"given": (folder, "residual_after_attn.0")},
        )
