"""Stock `RemoteBridge` code over a real server, hook by hook beside a local bridge of the same weights."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformer_lens import patching
from transformer_lens.model_bridge import RemoteBridge, TransformerBridge

from support.models.families import FAMILIES
from support.servers.servers import Watcher, running, served, tiny
from transparent_llm import RemoteTransparentLlm, errors
from transparent_llm.integrations.transformer_lens import TransparentLlmBridge, boot_transparent_llm
from transparent_llm.integrations.transformer_lens.driver import canonical_name
from transparent_llm.integrations.transformer_lens.final_norm import FinalNorm
from transparent_llm.integrations.transformer_lens.hooks import HOOKS
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.app import Server
from transparent_llm_server.demo import DEMO_MODEL

TOLERANCE = 2e-5
TOKENS = torch.tensor([[0, 5, 6, 7, 8, 9], [0, 3, 2, 1, 9, 11]])
LEFT = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1]])
TEXTS = ["The river comes down", "Nobody knows how old the mill is", "She asked"]

RESIDUAL = {"hook_resid_pre", "hook_resid_mid", "hook_resid_post"}
ALL = {*RESIDUAL, "hook_attn_out", "hook_mlp_out", "attn.hook_pattern", "attn.hook_result", "mlp.hook_post"}
SCALE = "ln_final.hook_scale"
OFFERED = {
    "demo": ALL,
    "gpt2": ALL,
    "llama_gqa": ALL,
    "opt": ALL,  # TransformerLens itself has no hook_result there
    "bloom": ALL,
    "gpt_neox_parallel": ALL - {"hook_resid_mid"},  # no such tensor
    "mixtral": ALL,  # where TransformerLens has mlp.hook_post as another name of hook_mlp_out
    "gemma2": ALL - {"attn.hook_result"},  # before the norm that is part of what a head adds
    "granite": ALL - {"attn.hook_result"},  # before the residual multiplier
}
NO_LOCAL_RESULT = {"opt", "bloom"}
"""Not to be switched on locally: refused, or it takes the place of hook_attn_out."""


@dataclass(frozen=True)
class Bridges:
    """The same model twice."""

    family: str
    remote: TransparentLlmBridge
    local: Any


@pytest.fixture(scope="module")
def folders(family_folders: dict[str, Path]) -> dict[str, Path]:
    return {**family_folders, "demo": Path(DEMO_MODEL)}


@pytest.fixture(scope="module")
def server(folders: dict[str, Path]) -> Iterator[Server]:
    """All of `OFFERED`."""
    with running(serving={name: TransformerLensTransparentLlm(str(folders[name])) for name in OFFERED}) as server:
        yield server


@pytest.fixture(scope="module")
def local_of(folders: dict[str, Path]) -> Any:
    return cache(
        lambda name: TransformerBridge.boot_transformers(
            str(folders[name]), device="cpu", dtype=torch.float32, trust_remote_code=False
        )
    )


@pytest.fixture(params=OFFERED)
def both(request: pytest.FixtureRequest, server: Server, folders: dict[str, Path], local_of: Any) -> Iterator[Bridges]:
    name = request.param
    with RemoteTransparentLlm(server.address, model=name, timeout_s=60) as llm:
        yield Bridges(name, boot_transparent_llm(llm, folders[name]), local_of(name))


@pytest.fixture(scope="module")
def llm(server: Server) -> Iterator[RemoteTransparentLlm]:
    with RemoteTransparentLlm(server.address, model="gpt2", timeout_s=60) as llm:
        yield llm


@pytest.fixture
def bridge(llm: RemoteTransparentLlm, folders: dict[str, Path]) -> TransparentLlmBridge:
    return boot_transparent_llm(llm, folders["gpt2"])


def run(bridge: Any, given: Any, **options: Any) -> tuple[torch.Tensor, Any]:
    with torch.no_grad():
        logits, found = bridge.run_with_cache(given, **options)
    return logits, found


def require_same(name: str, remote: torch.Tensor, local: torch.Tensor, mask: torch.Tensor) -> None:
    """At positions of tokens."""
    assert remote.shape == local.shape, name
    assert remote.dtype == local.dtype, name
    held = mask.bool()
    if name.endswith("hook_pattern"):
        held = held[:, None, :, None] & held[:, None, None, :]
    else:
        held = held.reshape(*held.shape, *[1] * (remote.ndim - 2))
    held = held.expand_as(remote)
    assert (remote - local)[held].abs().max().item() <= TOLERANCE, name
    beyond = {"logits": -torch.inf, SCALE: 1.0}.get(name, 0.0)
    assert bool((remote[~held] == beyond).all()), name


def require_same_run(both: Bridges, given: Any, mask: torch.Tensor, **options: Any) -> None:
    logits, remote = run(both.remote, given, **options)
    local_logits, local = run(both.local, given, **options)
    require_same("logits", logits, local_logits, mask)
    layers = range(both.remote.cfg.n_layers)
    assert {f"blocks.{i}.{hook}" for i in layers for hook in OFFERED[both.family] - {"attn.hook_result"}} <= set(remote)
    assert SCALE in remote
    for name in remote:
        require_same(name, remote[name], local[name], mask)


def test_every_hook_of_token_ids_is_that_of_a_local_bridge(both: Bridges) -> None:
    require_same_run(both, TOKENS, torch.ones_like(TOKENS))


def test_every_hook_of_a_batch_that_is_padded_on_the_left(both: Bridges) -> None:
    require_same_run(both, TOKENS, LEFT, attention_mask=LEFT)


def test_every_hook_of_a_text(both: Bridges) -> None:
    text = TEXTS[1]
    tokens = both.local.to_tokens(text)
    assert torch.equal(both.remote.to_tokens(text), tokens)
    require_same_run(both, text, torch.ones_like(tokens))


def test_every_hook_of_a_list_of_texts(both: Bridges) -> None:
    lengths = [both.local.to_tokens(text).shape[1] for text in TEXTS]
    is_left = both.local.tokenizer.padding_side == "left"
    rows = [[1] * length + [0] * (max(lengths) - length) for length in lengths]
    require_same_run(both, TEXTS, torch.tensor([row[::-1] if is_left else row for row in rows]))


def test_what_is_offered_is_what_the_methods_define(both: Bridges) -> None:
    names = {name for name in both.remote.hook_dict if name.startswith("blocks.0.")}
    hooks = {name.removeprefix("blocks.0.") for name in names}
    assert hooks & ALL == OFFERED[both.family]
    assert {both.local.hook_dict[name].name for name in names} == names & both.remote._driver.supported_hook_points


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_its_hooks_where_transformer_lens_has_them(family: str) -> None:
    bridge = tiny(family).bridged._bridge
    block = bridge.adapter.component_mapping["blocks"]
    names = {hook.name: canonical_name(block, hook.name) for hook in HOOKS}
    placed = {f"blocks.{i}.{hook}": f"blocks.{i}.{name}" for hook, name in names.items() if name for i in (0, 1)}
    assert len(placed) >= 2 * 6
    assert placed == {hook: bridge.hook_dict[hook].name for hook in placed}


def test_what_each_head_adds_is_silent_until_it_is_switched_on(both: Bridges) -> None:
    names = [f"blocks.{i}.attn.hook_result" for i in range(both.remote.cfg.n_layers)]
    _, silent = run(both.remote, TOKENS)
    assert not set(names) & set(silent)
    if "attn.hook_result" not in OFFERED[both.family]:
        with pytest.raises(errors.NotSupportedError, match=r"blocks\.0\.attn\.hook_result cannot be read"):
            both.remote.run_with_cache(TOKENS, names_filter=names)
        return
    both.remote.set_use_attn_result(True)
    _, remote = run(both.remote, TOKENS, names_filter=names)
    assert set(remote) == set(names)
    if both.family in NO_LOCAL_RESULT:
        _, local = run(both.local, TOKENS)
        for i, name in enumerate(names):
            bias = both.local.blocks[i].attn.b_O
            added = local[f"blocks.{i}.hook_attn_out"]
            assert (remote[name].sum(dim=2) + bias - added).abs().max().item() <= TOLERANCE
        return
    both.local.set_use_attn_result(True)
    try:
        _, local = run(both.local, TOKENS)
    finally:
        both.local.set_use_attn_result(False)
    for name in names:
        require_same(name, remote[name], local[name], torch.ones_like(TOKENS))


@pytest.mark.parametrize("mask", [None, LEFT], ids=["whole", "padded"])
def test_the_loss_is_that_of_a_local_bridge(bridge: TransparentLlmBridge, local_of: Any, mask: Any) -> None:
    wanted = local_of("gpt2")(TOKENS, return_type="loss", attention_mask=mask)
    assert (bridge.forward(TOKENS, return_type="loss", attention_mask=mask) - wanted).abs().item() <= TOLERANCE


def test_only_what_is_wanted_travels_and_in_one_stream(folders: dict[str, Path]) -> None:
    watcher = Watcher()
    with served(watcher) as llm:
        bridge = boot_transparent_llm(llm, folders["gpt2"])
        watcher.calls.clear()
        watcher.messages = 0
        _, found = run(bridge, TOKENS, names_filter=["blocks.1.hook_resid_mid", "blocks.0.attn.hook_pattern"])
        assert watcher.names == ["Run", "Fetch"]
        assert watcher.messages == 1 + 1 + 2 * 4  # logits, the stream, a pattern of each head
        assert set(found) == {"blocks.1.hook_resid_mid", "blocks.1.ln2.hook_in", "blocks.0.attn.hook_pattern"}
        watcher.calls.clear()
        _, found = run(bridge, TOKENS, names_filter=lambda name: name == "blocks.0.hook_mlp_out", return_type=None)
        assert set(found) == {"blocks.0.hook_mlp_out"}
        assert bridge.forward(TOKENS, return_logits=False) is None
        assert watcher.names == ["Run", "Fetch", "Run"]


def test_a_model_of_this_process_does_as_well(folders: dict[str, Path], local_of: Any) -> None:
    llm = TransformerLensTransparentLlm(str(folders["gpt2"]))
    require_same_run(Bridges("gpt2", boot_transparent_llm(llm, folders["gpt2"]), local_of("gpt2")), TOKENS, LEFT | 1)


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_a_narrow_model_gives_the_bits_of_a_local_bridge(family: str, folders: dict[str, Path]) -> None:
    folder, dtype = str(folders[family]), torch.bfloat16
    bridge = boot_transparent_llm(TransformerLensTransparentLlm(folder, dtype=dtype), folder)
    logits, remote = run(bridge, TOKENS)
    wanted, local = run(
        TransformerBridge.boot_transformers(folder, device="cpu", dtype=dtype, trust_remote_code=False), TOKENS
    )
    assert bridge.cfg.dtype == logits.dtype == dtype
    assert torch.equal(logits, wanted)
    assert [name for name in remote if not torch.equal(remote[name], local[name])] == []


def test_a_block_that_cuts_values_makes_no_bridge(llm: RemoteTransparentLlm, folders: dict[str, Path]) -> None:
    with llm.reading(dtype=torch.bfloat16):  # smaller values are its maker's choice
        narrow = boot_transparent_llm(llm, folders["gpt2"])
    assert run(narrow, TOKENS)[0].dtype == torch.bfloat16
    with llm.reading(pos=slice(-1, None)), pytest.raises(errors.InvalidRequestError, match="the tokenizer of"):
        boot_transparent_llm(llm, folders["gpt2"])


def test_the_callers_run_and_connection_stay_as_they_are(llm: RemoteTransparentLlm, folders: dict[str, Path]) -> None:
    llm.run_tokens([[1, 2, 3]])
    with boot_transparent_llm(llm, folders["gpt2"]) as bridge:
        run(bridge, TOKENS)
    assert llm.tokens().tolist() == [[1, 2, 3]]
    assert llm.residual_out(0).shape == (1, 3, 64)


def zeroed(value: torch.Tensor, hook: Any) -> torch.Tensor:
    return torch.zeros_like(value)


def zeroed_in_place(value: torch.Tensor, hook: Any) -> torch.Tensor:
    value[:, 0] = 0
    return value


def zeroed_in_silence(value: torch.Tensor, hook: Any) -> None:
    value[:, 0] = 0


@pytest.mark.filterwarnings("ignore:RemoteBridge fwd_hooks")
@pytest.mark.parametrize("change", [zeroed, zeroed_in_place, zeroed_in_silence])
def test_a_hook_that_changes_its_value_is_an_error_not_a_patch_without_effect(
    change: Any, bridge: TransparentLlmBridge
) -> None:
    name = "blocks.1.hook_resid_pre"
    with pytest.raises(errors.NotSupportedError, match=r"a hook function changed blocks.1.hook_.*cannot be changed"):
        bridge.run_with_hooks(TOKENS, fwd_hooks=[(name, change)])
    bridge.add_hook(name, change)
    with pytest.raises(errors.NotSupportedError, match="a hook function changed"):
        bridge.forward(TOKENS)
    bridge.reset_hooks()
    assert bridge.run_with_cache(TOKENS)[1][name].shape == (2, 6, 64)


@pytest.mark.filterwarnings("ignore:RemoteBridge fwd_hooks")
@pytest.mark.parametrize("name", ["get_act_patch_resid_pre", "get_act_patch_mlp_out", "get_act_patch_attn_out"])
def test_activation_patching_is_an_error_not_a_constant(name: str, bridge: TransparentLlmBridge) -> None:
    _, clean = run(bridge, TOKENS[:1])
    with pytest.raises(errors.NotSupportedError, match="cannot be changed"):
        getattr(patching, name)(bridge, TOKENS[1:], clean, lambda logits: logits[0, -1, 0])


def test_words_and_the_unembedding_are_those_of_a_local_bridge(both: Bridges) -> None:
    remote, local = both.remote, both.local
    assert repr(remote).startswith("<TransparentLlmBridge of <RemoteTransparentLlm(")
    assert remote.to_str_tokens(TEXTS[0]) == local.to_str_tokens(TEXTS[0])
    assert remote.to_str_tokens(TEXTS[:2]) == local.to_str_tokens(TEXTS[:2])
    ids = local.to_tokens(TEXTS[0], prepend_bos=False)
    assert remote.to_str_tokens(ids) == local.to_str_tokens(ids)
    assert remote.to_string(ids[0]) == local.to_string(ids[0])
    word = remote.to_str_tokens(ids)[-1]
    assert remote.to_single_token(word) == local.to_single_token(word)
    with pytest.raises(errors.InvalidRequestError, match="tokens, not one"):
        remote.to_single_token(TEXTS[0])
    assert (remote.W_U - local.W_U).abs().max().item() <= TOLERANCE
    residual = torch.linspace(-1, 1, 2 * 3 * remote.cfg.d_model).reshape(2, 3, -1)
    wanted = local.unembed(residual).detach()
    assert (remote.unembed(residual) - wanted).abs().max().item() <= 10 * TOLERANCE * wanted.abs().max().item()


def test_a_hook_function_sees_what_was_read(bridge: TransparentLlmBridge) -> None:
    seen: list[torch.Tensor] = []

    def keep(value: torch.Tensor, hook: Any) -> None:
        seen.append(value)

    with pytest.warns(UserWarning, match="does NOT change the forward"):
        bridge.run_with_hooks(TOKENS, fwd_hooks=[("blocks.1.hook_resid_post", keep)])
    _, found = run(bridge, TOKENS)
    assert torch.equal(seen[0], found["blocks.1.hook_resid_post"])


@pytest.mark.parametrize(
    "names", ["hook_embed", ["blocks.0.hook_resid_pre", "blocks.0.attn.hook_z"], ["blocks.7.hook_in"]]
)
def test_a_hook_that_cannot_be_read_is_refused_with_those_that_can(bridge: TransparentLlmBridge, names: Any) -> None:
    with pytest.raises(errors.NotSupportedError) as caught:
        bridge.run_with_cache(TOKENS, names_filter=names)
    wrong = names if isinstance(names, str) else names[-1]
    assert caught.value.metadata == {"hooks": wrong}
    instead = {
        "hook_embed": "; blocks.0.hook_resid_pre is the sum of the embeddings",
        "blocks.0.attn.hook_z": "; of z attn.hook_result has what W_O makes of it, each head's own, after "
        "set_use_attn_result(True)",
    }
    assert str(caught.value) == (
        f"{wrong} cannot be read from the service{instead.get(wrong, '')}. These can: blocks.LAYER.attn.hook_out, "
        "blocks.LAYER.attn.hook_pattern, blocks.LAYER.attn.hook_result, blocks.LAYER.hook_in, blocks.LAYER.hook_out, "
        "blocks.LAYER.ln2.hook_in, blocks.LAYER.mlp.hook_out, blocks.LAYER.mlp.out.hook_in, ln_final.hook_scale, also "
        "under their HookedTransformer names, and the logits, which are returned. For others, load the model into "
        "this process, TransformerBridge.boot_transformers(...), for that"
    )


def attach_for_a_run(bridge: TransparentLlmBridge, name: str) -> None:
    with pytest.warns(UserWarning, match="read-only"):
        bridge.run_with_hooks(TOKENS, fwd_hooks=[(name, print)])


def attach_for_a_block(bridge: TransparentLlmBridge, name: str) -> None:
    with bridge.hooks(fwd_hooks=[(name, print)]):
        pass


def attach_for_good(bridge: TransparentLlmBridge, name: str) -> None:
    bridge.add_hook(name, print)


@pytest.mark.parametrize("attach", [attach_for_a_run, attach_for_a_block, attach_for_good])
def test_a_hook_function_where_nothing_can_be_read_is_refused(bridge: TransparentLlmBridge, attach: Any) -> None:
    with pytest.raises(errors.NotSupportedError, match=r"blocks\.0\.attn\.hook_q cannot be read"):
        attach(bridge, "blocks.0.attn.hook_q")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"intervene": {"blocks.0.attn.hook_attn_scores": {"op": "suppress"}}},
            "blocks.0.attn.hook_attn_scores cannot be edited in the service. These can: blocks.LAYER.",
        ),
        ({"intervene": {"blocks.0.hook_out": print}}, "blocks.0.hook_out: a function is never run on a server"),
        ({"max_new_tokens": 5}, "the service runs a text once and generates none; load the model"),
        (
            {"past_key_values": None, "position_ids": 1},
            "the service runs token ids with a mask and takes no past_key_v",
        ),
        ({"stop_at_layer": 1}, "RemoteBridge does not support stop_at_layer"),
        ({"start_at_layer": 1}, "RemoteBridge does not support start_at_layer"),
        ({"incl_bwd": True}, "RemoteBridge has no backward pass"),
    ],
)
def test_what_cannot_be_done_remotely_is_refused(bridge: TransparentLlmBridge, options: Any, text: str) -> None:
    with pytest.raises(NotImplementedError) as caught:
        bridge.run_with_cache(TOKENS, **options)
    assert str(caught.value).startswith(text)


@pytest.mark.parametrize(
    ("given", "options", "text"),
    [
        (None, {}, "forward needs input_ids: the service runs token ids"),
        (torch.rand(1, 2, 64), {}, "input_ids must be integers of shape [batch pos] or [pos], got torch.float32"),
        (TOKENS, {"prepend_bos": False}, "prepend_bos is for texts: token ids are run as they are"),
        (TEXTS, {"attention_mask": LEFT}, "texts bring their own attention_mask: leave it out, or give token ids"),
        (TOKENS + 499, {}, "token 504 is not in the vocabulary"),
        (torch.ones(1, 65, dtype=torch.int64), {}, "sentence 0 has 65 tokens, the model's context is 64"),
    ],
)
def test_what_is_no_input_is_refused(bridge: TransparentLlmBridge, given: Any, options: Any, text: str) -> None:
    with pytest.raises(errors.InvalidRequestError) as caught:
        bridge.forward(given, **options)
    assert str(caught.value).startswith(text)


def test_texts_without_their_beginning_token(bridge: TransparentLlmBridge, local_of: Any) -> None:
    logits, _ = run(bridge, TEXTS[0], prepend_bos=False)
    wanted, _ = run(local_of("gpt2"), TEXTS[0], prepend_bos=False)
    require_same("logits", logits, wanted, torch.ones(wanted.shape[:2]))
    assert torch.equal(bridge.forward(TEXTS[0], prepend_bos=False), logits)


def test_the_configuration_of_another_model_is_refused(llm: RemoteTransparentLlm, folders: dict[str, Path]) -> None:
    with pytest.raises(errors.InvalidRequestError) as caught:
        boot_transparent_llm(llm, folders["gemma3"])
    assert str(caught.value) == (
        "this is not the configuration of 'gpt2': n_layers is 3 here and 2 there, architecture is Gemma3ForCausalLM "
        "here and GPT2LMHeadModel there"
    )


def test_the_tokenizer_of_another_model_is_refused(
    llm: RemoteTransparentLlm, folders: dict[str, Path], tmp_path: Path
) -> None:
    for path in [*Path(DEMO_MODEL).glob("tokenizer*"), folders["gpt2"] / "config.json"]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(errors.InvalidRequestError, match="is not that of 'gpt2': it makes"):
        boot_transparent_llm(llm, tmp_path)


def test_a_folder_without_a_configuration_is_refused(llm: RemoteTransparentLlm, tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidRequestError, match="no configuration and tokenizer in "):
        boot_transparent_llm(llm, tmp_path)


# Attribution to logits


def attributed(bridge: Any, tokens: Any, incorrect: Any = None) -> torch.Tensor:
    """Of all that the stream is the sum of, to the logits of tokens."""
    _, found = run(bridge, TOKENS)
    parts, labels = found.decompose_resid(incl_embeds=False, return_labels=True)
    assert len(labels) == 2 * bridge.cfg.n_layers
    stack = torch.cat([found["blocks.0.hook_resid_pre"][None], parts])
    attributions: torch.Tensor = found.logit_attrs(stack, tokens, incorrect)
    return attributions.detach()


@pytest.mark.parametrize(
    ("tokens", "incorrect"),
    [(7, None), (torch.tensor([3, 4]), None), (torch.arange(12).reshape(2, 6), torch.arange(1, 13).reshape(2, 6))],
    ids=["one", "one of each row", "of each position, less another"],
)
def test_attributions_to_logits_are_those_of_a_local_bridge(both: Bridges, tokens: Any, incorrect: Any) -> None:
    got, wanted = (attributed(bridge, tokens, incorrect) for bridge in (both.remote, both.local))
    assert got.shape == wanted.shape == (1 + 2 * both.remote.cfg.n_layers, 2, 6)
    assert (got - wanted).abs().max().item() <= TOLERANCE * max(1.0, wanted.abs().max().item())


def test_attributions_to_a_word_are_those_to_its_token(bridge: TransparentLlmBridge) -> None:
    assert torch.equal(attributed(bridge, bridge.to_str_tokens(torch.tensor([7]))[0]), attributed(bridge, 7))


def test_attributions_of_all_parts_sum_to_the_logit(folders: dict[str, Path]) -> None:
    """Where the final norm has no weights of its own, and nothing else is between it and the logits."""
    model = TransformerLensTransparentLlm(str(folders["gpt2"]))
    final = model.bridged._bridge.ln_final.original_component
    with torch.no_grad():
        final.weight.fill_(1)
        final.bias.fill_(0)
    bridge = boot_transparent_llm(model, folders["gpt2"])
    logits, _ = run(bridge, TOKENS)
    for token in (3, 200):
        assert (attributed(bridge, token).sum(dim=0) - logits[..., token]).abs().max().item() <= TOLERANCE


def test_each_heads_share_of_a_logit(bridge: TransparentLlmBridge, local_of: Any) -> None:
    local, shares = local_of("gpt2"), []
    for each in (bridge, local):
        each.set_use_attn_result(True)
        _, found = run(each, TOKENS)
        heads, labels = found.stack_head_results(return_labels=True)
        assert labels == [f"L{layer}H{head}" for layer in range(2) for head in range(4)]
        shares.append(found.logit_attrs(heads, 7).detach())
    local.set_use_attn_result(False)
    assert (shares[0] - shares[1]).abs().max().item() <= TOLERANCE


@pytest.mark.parametrize("tokens", [-1, 512, torch.tensor([1, 9999]), 0.5, torch.tensor([])], ids=str)
def test_what_is_no_token_has_no_direction(tokens: Any, bridge: TransparentLlmBridge) -> None:
    with pytest.raises(errors.InvalidRequestError, match=r"^tokens are ids"):
        bridge.tokens_to_residual_directions(tokens)


def test_what_needs_the_norms_weights_is_refused(bridge: TransparentLlmBridge) -> None:
    _, found = run(bridge, TOKENS)
    with pytest.raises(errors.NotSupportedError, match="the final norm's weights are not here, so that no vector is"):
        found.accumulated_resid(apply_ln=True)
    assert found.accumulated_resid().shape == (3, 2, 6, 64)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (("z", 0), "; of z attn.hook_result has what W_O makes of it"),
        (("q", 1), "; of queries and keys attn.hook_pattern has the probabilities"),
        (("k", 1), "; of queries and keys attn.hook_pattern has the probabilities"),
        (("v", 0), "; of values the client's decomposed_attn(batch_i, layer) has pattern times value times W_O"),
        ("blocks.0.ln1.hook_scale", ""),
    ],
    ids=str,
)
def test_a_cache_says_what_it_cannot_have(name: Any, words: str, bridge: TransparentLlmBridge) -> None:
    _, found = run(bridge, TOKENS)
    with pytest.raises(errors.NotSupportedError) as caught:
        found[name]
    assert f"cannot be read from the service{words}" in str(caught.value)


def test_a_cache_says_what_was_left_out(bridge: TransparentLlmBridge) -> None:
    _, found = run(bridge, TOKENS)
    with pytest.raises(errors.NotSupportedError, match=r"hook_z cannot be read .*set_use_attn_result\(True\)"):
        found.stack_head_results()
    with pytest.raises(KeyError, match=r"hook_result was not read: .* and set_use_attn_result\(True\) is needed"):
        found["blocks.0.attn.hook_result"]
    _, found = run(bridge, TOKENS, names_filter="blocks.0.hook_resid_pre")
    with pytest.raises(KeyError, match=r"blocks\.1\.hook_resid_pre was not read: names_filter must let it through"):
        found["resid_pre", 1]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_scale_is_offered_only_if_the_served_norm_is_that_of_the_configuration(family: str) -> None:
    model = tiny(family)
    adapter = model.bridged._bridge.adapter
    norm = FinalNorm.of(adapter, model)
    assert norm is not None
    cfg = adapter.cfg
    kinds = {"eps": (norm.eps * 4, norm.eps / 4, 0.0), "normalization_type": ("RMS" if norm.centers else "LN", None)}
    for name, values in kinds.items():
        for value in values:
            other = copy.copy(cfg)
            other.final_rms = False
            setattr(other, name, value)
            changed = SimpleNamespace(cfg=other, component_mapping=adapter.component_mapping)
            assert FinalNorm.of(changed, model) is None, (name, value)
    assert FinalNorm.of(SimpleNamespace(cfg=cfg, component_mapping={}), model) is None


def test_padding_is_not_read(folders: dict[str, Path]) -> None:
    watcher = Watcher()
    with served(watcher) as llm:
        bridge = boot_transparent_llm(llm, folders["gpt2"])
        _, found = run(bridge, TOKENS, attention_mask=LEFT, names_filter="blocks.0.hook_attn_out", return_type=None)
    assert found["blocks.0.hook_attn_out"].shape == (2, 6, 64)
    items = [item.attention_output for item in watcher.requests[-1].items if item.HasField("attention_output")]
    assert [item.pos for item in items if item.batch_i == 0] == [0, 1, 2, 3, 4, 5]
    assert [item.pos for item in items if item.batch_i == 1] == [0, 1, 2, 3]


def test_it_is_a_remote_bridge(bridge: TransparentLlmBridge) -> None:
    assert isinstance(bridge, RemoteBridge)


def test_without_transformer_lens_the_message_says_what_to_install() -> None:
    code = "import sys; sys.modules['transformer_lens'] = None; import transparent_llm.integrations.transformer_lens"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[-1] == (
        "ImportError: transparent_llm.integrations.transformer_lens requires the [transformer-lens] extra, and "
        "transformer_lens is not installed: run pip install 'PATH[transformer-lens]', where PATH is the checkout or "
        "the wheel that the client was installed from"
    )


def test_the_stock_bridge_takes_the_driver(both: Bridges) -> None:
    """`RemoteBridge` itself, to which the class that `boot_transparent_llm` makes only adds."""
    stock = RemoteBridge(both.remote.adapter, both.remote.tokenizer, both.remote._driver)
    wanted = ["blocks.1.hook_resid_pre", "blocks.0.hook_mlp_out"]
    remote_logits, remote = run(stock, TOKENS, names_filter=lambda name: name in wanted)
    local_logits, local = run(both.local, TOKENS, names_filter=lambda name: name in wanted)
    assert set(wanted) <= set(remote)
    for name in wanted:
        require_same(name, remote[name], local[name], torch.ones_like(TOKENS))
    require_same("logits", remote_logits, local_logits, torch.ones_like(TOKENS))
