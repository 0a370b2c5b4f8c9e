"""Sparse autoencoders as SAELens saves them, with random weights."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

ARCHITECTURES = (
    *("standard", "topk", "batchtopk", "jumprelu", "gated"),
    *("transcoder", "skip_transcoder", "jumprelu_transcoder"),
)


def weights_of(architecture: str, d_in: int, d_sae: int, d_out: int | None = None) -> dict[str, torch.Tensor]:
    """Random ones, of which about half of the features are active."""
    made = torch.Generator().manual_seed(len(architecture))

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=made)

    d_out = d_in if d_out is None else d_out
    found = {"W_enc": random(d_in, d_sae), "W_dec": random(d_sae, d_out), "b_dec": 0.1 * random(d_out)}
    if architecture == "gated":
        found |= {name: 0.3 * random(d_sae) for name in ("b_gate", "r_mag", "b_mag")}
    else:
        found["b_enc"] = 0.3 * random(d_sae)
    if architecture == "jumprelu":
        found["threshold"] = random(d_sae).abs()
    elif architecture.startswith("jumprelu"):
        found["log_threshold"] = 0.1 * random(d_sae)
    elif architecture == "batchtopk":
        found["topk_threshold"] = torch.tensor(0.5)
    if "skip" in architecture:
        found["W_skip"] = random(d_out, d_in)
    return found


def save_sae(folder: Path, architecture: str, weights: dict[str, torch.Tensor], **settings: Any) -> Path:
    """Write the two files; `settings` come first."""
    (d_in, d_sae), d_out = weights["W_enc"].shape, weights["W_dec"].shape[1]
    config = {"architecture": architecture, "d_in": d_in, "d_sae": d_sae, "dtype": "float32", "metadata": {}}
    config["apply_b_dec_to_input"] = "transcoder" not in architecture
    config |= {"k": 3} if architecture == "topk" else {}
    config |= {"d_out": d_out} if "transcoder" in architecture else {}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(config | settings))
    save_file(weights, folder / "sae_weights.safetensors")
    return folder


def identity(d: int) -> dict[str, torch.Tensor]:
    """Features are the positive numbers themselves."""
    return {"W_enc": torch.eye(d), "W_dec": torch.eye(d), "b_enc": torch.zeros(d), "b_dec": torch.zeros(d)}


@cache
def random_sae(d_in: int) -> Path:
    """A standard one of 24 features, made once and there to the end of the process."""
    folder = tempfile.TemporaryDirectory(prefix="sae-")
    _HELD.append(folder)
    return save_sae(Path(folder.name), "standard", weights_of("standard", d_in, 24))


_HELD: list[tempfile.TemporaryDirectory[str]] = []
