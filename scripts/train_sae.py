"""Train a small sparse autoencoder on the residual stream of the demo model, and save it as SAELens does.

    python scripts/train_sae.py --text PATH/tinyshakespeare.txt --out sae
    transparent-llm serve --model demo --sae demo-res1=sae@residual_out.1

It is a topk autoencoder with decoder rows of length 1, so that activations count in units of the stream. The last
tenth of the text is held out. The same text, arguments, threads and version of torch give the same bits.
`training.json` beside it has what was measured on what was held out: the share of variance explained, and how many
features were ever active.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.demo import DEMO_MODEL

SENTENCE_CHARACTERS, ROWS_AT_ONCE, BATCH = 300, 32, 1024
HELD_OUT_FRACTION = 0.1
Weights = dict[str, torch.Tensor]


def values_of(text: str, layer: int, n_tokens: int) -> torch.Tensor:
    """The residual stream after a layer at tokens from all over a text [n d_model], without first tokens, which are
    like no others."""
    llm = TransformerLensTransparentLlm(str(DEMO_MODEL))
    starts = range(0, len(text) - SENTENCE_CHARACTERS, SENTENCE_CHARACTERS)
    sentences = [text[start : start + SENTENCE_CHARACTERS] for start in starts]
    order = torch.randperm(len(sentences), generator=torch.Generator().manual_seed(0)).tolist()
    found, count = list[torch.Tensor](), 0
    for start in range(0, len(order), ROWS_AT_ONCE):
        if count >= n_tokens:
            break
        llm.run([sentences[i] for i in order[start : start + ROWS_AT_ONCE]])
        found.append(llm.residual_out(layer)[:, 1:][llm.mask()[:, 1:]])
        count += len(found[-1])
    return torch.cat(found)[:n_tokens]


def encoded(x: torch.Tensor, weights: Weights, k: int) -> torch.Tensor:
    """Activations [n d_sae]."""
    top = ((x - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]).topk(k, dim=1)
    return torch.zeros(len(x), len(weights["b_enc"])).scatter(1, top.indices, top.values.relu())


def train(x: torch.Tensor, d_sae: int, k: int, steps: int, lr: float) -> Weights:
    """Of values that are about as long as their number is wide; the decoder begins as random directions."""
    made = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(d_sae, x.shape[1], generator=made), dim=1)
    weights = {"W_enc": rows.T.clone(), "W_dec": rows.clone(), "b_enc": torch.zeros(d_sae), "b_dec": x.mean(dim=0)}
    for weight in weights.values():
        weight.requires_grad_(True)
    optimizer = torch.optim.Adam(weights.values(), lr=lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, 2 * (1 - step / steps)))
    for step in range(steps):
        batch = x[torch.randint(len(x), (BATCH,), generator=made)]
        error = encoded(batch, weights, k) @ weights["W_dec"] + weights["b_dec"] - batch
        loss = error.square().sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            weights["W_dec"].copy_(torch.nn.functional.normalize(weights["W_dec"], dim=1))
        if step % 200 == 0 or step == steps - 1:
            print(f"step {step}: squared error {loss.item():.3f} of {x.shape[1]}")
    return {name: weight.detach() for name, weight in weights.items()}


def unscaled(weights: Weights, scale: float) -> Weights:
    """The same for values that are not divided by a scale; rows of the decoder stay of length 1."""
    return {**weights, "b_enc": scale * weights["b_enc"], "b_dec": scale * weights["b_dec"]}


def measured(x: torch.Tensor, weights: Weights, k: int) -> dict[str, float]:
    """On values that were not trained on."""
    activations = encoded(x, weights, k)
    error = x - activations @ weights["W_dec"] - weights["b_dec"]
    explained = 1 - error.square().sum() / (x - x.mean(dim=0)).square().sum()
    return {"explained": round(explained.item(), 4), "features_ever_active": int((activations > 0).any(dim=0).sum())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--layer", type=int, default=1)
    parser.add_argument("--d-sae", type=int, default=256)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--lr", type=float, default=2e-3)
    given = parser.parse_args()
    text = given.text.read_text(encoding="utf-8")
    end = int(len(text) * (1 - HELD_OUT_FRACTION))
    x, held_out = values_of(text[:end], given.layer, given.tokens), values_of(text[end:], given.layer, given.tokens)
    scale = float(x.norm(dim=1).mean()) / x.shape[1] ** 0.5
    weights = unscaled(train(x / scale, given.d_sae, given.k, given.steps, given.lr), scale)
    figures = measured(held_out, weights, given.k)
    given.out.mkdir(parents=True, exist_ok=True)
    save_file({name: weight.contiguous() for name, weight in weights.items()}, given.out / "sae_weights.safetensors")
    config = {
        "architecture": "topk",
        "d_in": x.shape[1],
        "d_sae": given.d_sae,
        "k": given.k,
        "dtype": "float32",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"hook_name": f"blocks.{given.layer}.hook_resid_post", "model_name": "transparent-llm demo"},
    }
    (given.out / "cfg.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    settings = {name: value for name, value in vars(given).items() if name not in ("text", "out")}
    (given.out / "training.json").write_text(json.dumps({**settings, **figures}, indent=2) + "\n", encoding="utf-8")
    print(figures)


if __name__ == "__main__":
    main()
