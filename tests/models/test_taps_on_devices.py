"""What taps show on a device is what plain Hugging Face computes there, and it stays there."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from support.models.families import save
from support.models.reference import Recorder, layout_of
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.models.forward.batch import run_together
from transparent_llm_server.models.forward.capture import Capture

N_GPUS = torch.cuda.device_count()
DEVICES = [
    "cpu",
    pytest.param("cuda:0", marks=pytest.mark.skipif(N_GPUS < 1, reason="needs a GPU; none is here")),
]
COMPARED = [
    ("residual_out", 1),
    *((name, i) for i in (0, 1) for name in ("residual_in", "attn_out", "ffn_out", "pattern", "value")),
]
ROWS = [[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], [12, 13, 14]]


def plainly(model: Any, capture: Capture) -> dict[tuple[str, int], torch.Tensor]:
    """(field, layer) -> what an untouched model computes of the same batch, in float32."""
    layout, recorder = layout_of(model.config), Recorder(*capture.tokens.shape)
    for index, block in enumerate(model.get_submodule(layout.blocks)):
        recorder.watch(block, index, before="residual_in", after="residual_out")
        attn, ffn = layout.attn_post_norm or layout.attn_out, layout.ffn_post_norm or layout.ffn
        recorder.watch(block.get_submodule(attn), index, after="attn_out")
        recorder.watch(block.get_submodule(ffn), index, after="ffn_out")
        recorder.watch(block.get_submodule(layout.values), index, after="projected")
    with torch.no_grad():
        tokens, mask = capture.tokens.to(model.device), capture.mask.to(model.device, torch.int64)
        out = model(tokens, attention_mask=mask, output_attentions=True, use_cache=False)
    n_heads, found = model.config.num_attention_heads, recorder.values
    for index, pattern in enumerate(out.attentions):
        found["pattern", index] = pattern.float()
        projected = found.pop(("projected", index))
        d_head = getattr(model.config, "head_dim", None) or model.config.hidden_size // n_heads
        found["value", index] = layout.split(projected, n_heads, d_head)
    return found


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", ["gpt2", "llama_gqa", "mixtral", "gemma2"])
def test_they_show_what_the_plain_model_computes(family: str, dtype: torch.dtype, device: str, tmp_path: Path) -> None:
    """On the CPU bit for bit."""
    folder = save(family, tmp_path)
    llm = TransformerLensTransparentLlm(str(folder), device=device, dtype=dtype)
    assert llm.describe().engine == "taps"
    (capture,) = run_together(llm.bridged, [llm.prepare(ROWS)])
    plain = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=dtype, trust_remote_code=False
    )
    plain.set_experts_implementation("eager")
    wanted = plainly(plain.to(device), capture)
    kept = {("residual_out", 1): capture.residual_out}
    for index, layer in enumerate(capture.layers):
        kept |= {(field.name, index): getattr(layer, field.name) for field in dataclasses.fields(layer)}
    assert {str(tensor.device) for tensor in kept.values() if tensor is not None} == {device}
    at_tokens = capture.mask.to(device)
    exact: dict[str, Any] = {"rtol": 0, "atol": 0} if device == "cpu" else {}
    for name, index in COMPARED:
        got, want = kept[name, index], wanted[name, index].to(dtype)
        if name == "pattern":
            got, want = got.transpose(1, 2), want.transpose(1, 2)
        torch.testing.assert_close(got[at_tokens], want[at_tokens], **exact)
