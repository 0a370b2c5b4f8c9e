"""`intervene=` of stock TransformerLens code, beside a local bridge whose hooks do the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge

from support.servers.servers import running
from transparent_llm import RemoteTransparentLlm, errors
from transparent_llm.integrations.transformer_lens import TransparentLlmBridge, boot_transparent_llm
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.demo import DEMO_MODEL

TOLERANCE = 5e-5
TOKENS = torch.tensor([[0, 5, 6, 7, 8, 9], [0, 3, 2, 1, 9, 11]])
LEFT = torch.tensor([[1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1]])
FAMILIES = ("gpt2", "llama_gqa", "gemma2", "opt", "bloom", "mpt", "gpt_neo", "falcon", "qwen3", "demo")
WITH_ROTATED_HOOKS = ("LlamaForCausalLM", "Gemma2ForCausalLM", "Qwen3ForCausalLM")
WITHOUT_ROTATION = ("GPT2LMHeadModel", "GPTNeoForCausalLM", "BloomForCausalLM", "MptForCausalLM")
HOOKS = (
    "hook_resid_pre",
    "hook_resid_post",
    "hook_attn_out",
    "hook_mlp_out",
    "mlp.hook_post",
    "attn.hook_z",
    "attn.hook_v",
    "attn.hook_q",
    "attn.hook_k",
    "attn.hook_rot_q",
    "attn.hook_rot_k",
)


@pytest.fixture(scope="module")
def folders(family_folders: dict[str, Path]) -> dict[str, Path]:
    return {**family_folders, "demo": Path(DEMO_MODEL)}


@pytest.fixture(scope="module", params=FAMILIES)
def both(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Iterator[tuple[TransparentLlmBridge, Any]]:
    folder = str(folders[request.param])
    local = TransformerBridge.boot_transformers(folder, device="cpu", dtype=torch.float32, trust_remote_code=False)
    with (
        running(serving={"model": TransformerLensTransparentLlm(folder)}) as server,
        RemoteTransparentLlm(server.address, timeout_s=60) as llm,
    ):
        yield boot_transparent_llm(llm, folder), local


def hooked(local: Any, name: str, spec: dict[str, Any], mask: torch.Tensor) -> torch.Tensor:
    """Logits of the local bridge, whose hook does what the spec says at tokens."""

    def change(tensor: torch.Tensor, hook: Any) -> torch.Tensor:
        flat = tensor.reshape(*tensor.shape[:2], -1)
        if "value" in spec:
            value = torch.as_tensor(spec["value"], dtype=torch.float32)
            made = flat + value if spec["op"] == "add" else value.expand_as(flat)
        else:
            made = flat * spec.get("factor", 0.0)
        held = mask.bool() & torch.tensor([spec.get("pos") is None or n in spec["pos"] for n in range(flat.shape[1])])
        return torch.where(held[..., None], made, flat).reshape(tensor.shape)

    with torch.no_grad():
        logits: torch.Tensor = local.run_with_hooks(TOKENS, attention_mask=mask, fwd_hooks=[(name, change)])
    return logits


def is_served(hook: str, architecture: str) -> bool:
    if hook in ("attn.hook_q", "attn.hook_k"):
        return architecture in WITHOUT_ROTATION or (architecture, hook) == ("OPTForCausalLM", "attn.hook_k")
    return "rot" not in hook or architecture in WITH_ROTATED_HOOKS


@pytest.mark.parametrize("hook", HOOKS)
@pytest.mark.parametrize("mask", [torch.ones_like(TOKENS), LEFT], ids=["whole", "padded"])
def test_each_operation_at_each_hook(both: tuple[TransparentLlmBridge, Any], hook: str, mask: torch.Tensor) -> None:
    remote, local = both
    name = f"blocks.1.{hook}"
    width = local.cfg.d_mlp if hook == "mlp.hook_post" else local.cfg.d_model
    if hook.startswith("attn.hook_") and hook != "attn.hook_out":
        n_kv = getattr(local.cfg, "n_key_value_heads", None) or local.cfg.n_heads
        width = local.cfg.d_head * (n_kv if hook[-1] in "kv" else local.cfg.n_heads)
    if not is_served(hook, local.cfg.architecture):
        words = "rotary embeddings or a factor" if "rot" not in hook else "cannot be edited in the service. These can"
        with pytest.raises(errors.NotSupportedError, match=words):
            remote.forward(TOKENS, intervene={name: {"op": "suppress"}})
        return
    value = torch.linspace(-1, 1, width)
    for spec in (
        {"op": "suppress"},
        {"op": "scale", "factor": -0.5, "pos": [2, 5]},
        {"op": "add", "value": value, "pos": [3]},
        {"op": "set", "value": 0.25, "pos": [2, 3]},
    ):
        logits = remote.forward(TOKENS, attention_mask=mask, intervene={name: spec})
        wanted = hooked(local, name, spec, mask)
        assert (logits - wanted)[mask.bool()].abs().max().item() <= TOLERANCE


def test_hooks_that_are_read_show_the_edit(both: tuple[TransparentLlmBridge, Any]) -> None:
    remote, _ = both
    spec = {"blocks.0.hook_mlp_out": {"op": "set", "value": 2.0, "pos": 1}}
    _, cache = remote.run_with_cache(TOKENS, names_filter=["blocks.0.hook_mlp_out"], intervene=spec)
    found = cache["blocks.0.hook_mlp_out"]
    assert bool((found[:, 1] == 2).all())
    assert not bool((found[:, 2] == 2).any())


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"op": "double"}, "an intervention is a dict whose op is one of suppress, scale, add, set"),
        ({"op": "scale"}, "op 'scale' needs factor"),
        ({"op": "scale", "factor": 1.0, "position": 3}, "op 'scale' has no position"),
        ({"op": "add", "value": [1.0, 2.0]}, "value has 2 elements, the hook has"),
        ({"op": "suppress", "pos": 6}, "pos must be positions from 0 to 5, one or a list, got int 6"),
        ({"op": "suppress", "pos": -1}, "pos must be positions from 0 to 5"),
        ({"op": "suppress", "pos": []}, "pos must be positions from 0 to 5"),
    ],
)
def test_what_makes_no_sense_is_refused(both: tuple[TransparentLlmBridge, Any], spec: Any, words: str) -> None:
    with pytest.raises(errors.InvalidRequestError, match=words):
        both[0].forward(TOKENS, intervene={"blocks.0.hook_resid_pre": spec})
