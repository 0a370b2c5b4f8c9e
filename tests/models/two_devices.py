"""Models on two devices, beside the same models on the CPU: a script, as it changes torch for its whole process.

Prints for each family how many values were equal, bit for bit, or what went wrong.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import traceback
from typing import Any

import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module

from support.models.families import FAMILIES, build_model, build_tokenizer
from support.models.twin_devices import NAME
from transparent_llm.testing import serve_in_process
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.models.forward.batch import run_together
from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.forward.capture import Capture

ROWS = [[1, 2, 3, 4, 5], [6, 7]]
FIRST, SECOND = 0, 1
OF_A_LAYER: tuple[tuple[str, tuple[Any, ...], tuple[Any, ...]], ...] = (
    ("residual_in", (), ()),
    ("residual_after_attn", (), ()),
    ("residual_out", (), ()),
    ("ffn_out", (), ()),
    ("decomposed_ffn_out", (1,), (1,)),
    ("neuron_activations", (1,), (1,)),
    ("neuron_output", (), (95,)),
    ("attention_matrix", (0,), (3,)),
    ("attention_output", (0,), (4,)),
    ("attention_output", (0,), (4, 2)),
    ("decomposed_attn", (0,), ()),
)
"""Method, arguments before the layer, arguments behind it."""

# These tensors have no storage of their own whose bytes could be counted.
Capture.storages = property(lambda self: {id(tensor): tensor.nbytes for tensor in self._tensors()})  # type: ignore[assignment]
BridgedModel.weight_bytes = property(lambda _: 0)  # type: ignore[assignment]


def spread(hf_model: Any) -> Any:
    """The second layer and what comes behind the last one on the second device, as accelerate places them."""
    blocks = "transformer.h" if hasattr(hf_model, "transformer") else "model.layers"
    placed: dict[str, str | int] = {}
    for name, module in hf_model.named_modules():
        in_blocks = name.startswith(f"{blocks}.")
        is_part = name.count(".") == blocks.count(".") + 1 if in_blocks else not list(module.children())
        if is_part:
            is_last = name in ("lm_head", "model.norm", "transformer.ln_f", f"{blocks}.1")
            placed[name] = f"{NAME}:{SECOND if is_last else FIRST}"
    for name, place in placed.items():
        whole = hf_model.get_submodule(name).to(place)
        for module in (whole, *(part for part in whole.modules() if part is not whole and not list(part.children()))):
            add_hook_to_module(module, AlignDevicesHook(execution_device=torch.device(place)))
    hf_model.hf_device_map = placed
    return hf_model


def values(llm: Any) -> dict[str, torch.Tensor]:
    """All that the contract gives, and what weights say."""
    llm.run_tokens(ROWS)
    vector = torch.linspace(-1, 1, 64)
    found = {"logits": llm.logits(), **{f"unembed {n}": llm.unembed(vector, n) for n in (True, False)}}
    for layer in (0, 1):
        for method, before, behind in OF_A_LAYER:
            found[f"{method} {before} {layer} {behind}"] = getattr(llm, method)(*before, layer, *behind)
    for kind in ("q", "k", "v"):
        found[f"composition_scores {kind}"] = llm.composition_scores(kind).scores.nan_to_num()
    found["copying_scores"] = llm.copying_scores().scores
    return {name: value.cpu() for name, value in found.items()}


def require_places(two: TransformerLensTransparentLlm) -> None:
    """All that taps keep of a layer stays on its device, also the stream that comes from the other one."""
    assert two.describe().engine == "taps"
    (capture,) = run_together(two.bridged, [two.prepare(ROWS)])
    for index, layer in zip((FIRST, SECOND), capture.layers, strict=True):
        kept = {field.name: getattr(layer, field.name) for field in dataclasses.fields(layer)}
        places = {name: str(tensor.device) for name, tensor in kept.items() if tensor is not None}
        assert places.keys() >= {"residual_in", "attn_out", "ffn_out", "pattern", "value", "neurons"}, places
        assert set(places.values()) == {f"{NAME}:{index}"}, places
    assert str(capture.residual_out.device) == f"{NAME}:{SECOND}"


def equal_values(family: str) -> int:
    """How many there are; all of them, or it fails."""
    config, tokenizer = FAMILIES[family], build_tokenizer()
    two = TransformerLensTransparentLlm(family, hf_model=spread(build_model(config())), tokenizer=tokenizer)
    one = TransformerLensTransparentLlm(family, hf_model=build_model(config()), tokenizer=tokenizer)
    assert two.describe().devices == {f"{NAME}:{FIRST}": 1, f"{NAME}:{SECOND}": 1}, two.describe()
    wanted = values(one)
    with serve_in_process(two, progress=False) as remote:
        for got in (values(two), values(remote)):
            different = [name for name, value in got.items() if not torch.equal(value, wanted[name])]
            assert different == [], different
    require_places(two)
    return len(wanted)


def outcome(family: str) -> str:
    """One that fails leaves the others their turn."""
    try:
        return f"{equal_values(family)} values are equal"
    except Exception:
        return traceback.format_exc()


if __name__ == "__main__":
    print(json.dumps({family: outcome(family) for family in sys.argv[1:]}))
