"""Train the embedded demo model: a small GPT-2 with its own BPE tokenizer and real induction heads.

    python scripts/train_demo_model.py --text PATH/tinyshakespeare.txt --out server/transparent_llm_server/demo/model

Three phases, because at this size induction heads hardly ever form by themselves in an hour on two cores:

1. guided: a random sequence and, at a random distance, the same again. Beside the loss on what can be predicted, a
   second one points a head of the first layer at the token before, and a head of the second layer at the token that
   followed the first copy.
2. repeats: the same without guidance.
3. mix: Shakespeare text, brought in slowly, and more repeats. Nothing holds the heads now but that they predict well.

The last tenth of the text is never trained on, neither by the tokenizer nor by the model. The script
writes model.safetensors, config.json, the tokenizer files and training.json (the command, the schedule
and the measured held-out bits per character and induction scores).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

VOCAB_SIZE, CONTEXT, BOS = 1024, 256, "<|endoftext|>"
HELD_OUT_FRACTION = 0.1
IGNORED_LABEL = -100


def train_tokenizer(text: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE: every string can be encoded, and token strings keep their leading space."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB_SIZE, special_tokens=[BOS], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=BOS, pad_token=BOS, model_max_length=CONTEXT
    )


def build_model(bos_id: int) -> GPT2LMHeadModel:
    config = GPT2Config(
        vocab_size=VOCAB_SIZE,
        n_positions=CONTEXT,
        n_embd=128,
        n_layer=4,
        n_head=4,
        initializer_range=0.08,  # about 1 / sqrt(width): with GPT-2's own 0.02 so small a model hardly moves at first
        bos_token_id=bos_id,
        eos_token_id=bos_id,
        pad_token_id=bos_id,
    )
    model = GPT2LMHeadModel(config)
    model.transformer.wpe.weight.data.copy_(0.1 * sinusoids(CONTEXT, config.n_embd))
    return model


def sinusoids(positions: int, width: int) -> torch.Tensor:
    """Where the learned position embeddings begin. From there "the token before" is one linear map away, and
    heads that look at it, without which there is no induction, form in minutes instead of hours."""
    angles = torch.arange(positions)[:, None] * torch.exp(torch.arange(0, width, 2) * (-math.log(10_000) / width))
    return torch.stack([angles.sin(), angles.cos()], dim=-1).reshape(positions, width)


@dataclass(frozen=True)
class Repeats:
    """A batch of repeated sequences."""

    tokens: torch.Tensor
    labels: torch.Tensor
    """The token itself inside the second copy; nothing to predict elsewhere."""

    sources: torch.Tensor
    """Position of the token that followed the first copy of the present one; -1 outside the second copy."""


def repeats_batch(batch: int, length: int, bos_id: int, generator: torch.Generator) -> Repeats:
    """BOS, noise, a random sequence, noise, the sequence again, noise.

    The distance of the copies is random in a wide range. With a period from a few values a head that looks back
    by a fixed number of positions is good enough, and no induction head forms.
    """
    tokens = torch.randint(1, VOCAB_SIZE, (batch, length), generator=generator)
    tokens[:, 0] = bos_id
    labels, sources = torch.full((batch, length), IGNORED_LABEL), torch.full((batch, length), -1)
    for row in range(batch):
        size = int(torch.randint(8, length // 2 - 3, (1,), generator=generator))
        first = 1 + int(torch.randint(0, length - 2 * size, (1,), generator=generator))
        gap = int(torch.randint(0, length - first - 2 * size + 1, (1,), generator=generator)) if row % 2 else 0
        second = first + size + gap
        tokens[row, second : second + size] = tokens[row, first : first + size]
        labels[row, second + 1 : second + size] = tokens[row, second + 1 : second + size]
        sources[row, second : second + size - 1] = torch.arange(first + 1, first + size)
    return Repeats(tokens, labels, sources)


def guidance(attentions: tuple[torch.Tensor, ...], repeats: Repeats) -> torch.Tensor:
    """Cross-entropy of two heads: one at the token before, one at the token after the first copy."""
    before = torch.diagonal(attentions[0][:, 0], offset=-1, dim1=-2, dim2=-1)
    row, query = torch.nonzero(repeats.sources >= 0, as_tuple=True)
    after = attentions[1][row, 0, query, repeats.sources[row, query]]
    return -(before + 1e-6).log().mean() - (after + 1e-6).log().mean()


def text_batch(ids: torch.Tensor, batch: int, bos_id: int, generator: torch.Generator) -> torch.Tensor:
    starts = torch.randint(0, len(ids) - CONTEXT, (batch,), generator=generator)
    rows = torch.stack([ids[start : start + CONTEXT - 1] for start in starts.tolist()])
    return torch.cat([torch.full((batch, 1), bos_id), rows], dim=1)


@torch.no_grad()
def bits_per_character(model: GPT2LMHeadModel, ids: torch.Tensor, characters: int, bos_id: int) -> float:
    """Total negative log2-likelihood of the text, in windows that each begin anew after BOS, per character."""
    model.eval()
    nats = 0.0
    for start in range(0, len(ids), CONTEXT - 1):
        window = torch.cat([torch.tensor([bos_id]), ids[start : start + CONTEXT - 1]])[None]
        logits = model(window).logits[0, :-1].double()
        nats += torch.nn.functional.cross_entropy(logits, window[0, 1:], reduction="sum").item()
    return nats / math.log(2) / characters


@torch.no_grad()
def induction_scores(model: GPT2LMHeadModel, bos_id: int, batch: int = 8) -> list[list[float]]:
    """[layer][head]: attention from the second copy of a random sequence to the token after the first copy.

    The mean over several lengths, primes, so that no fixed distance fits more than one of them.
    """
    model.eval()
    model.set_attn_implementation("eager")
    generator = torch.Generator().manual_seed(1234)
    scores = [_scores_at(model, bos_id, period, batch, generator) for period in (11, 17, 23, 29, 37)]
    model.set_attn_implementation("sdpa")
    mean: list[list[float]] = torch.stack(scores).mean(dim=0).tolist()
    return mean


def _scores_at(
    model: GPT2LMHeadModel, bos_id: int, period: int, batch: int, generator: torch.Generator
) -> torch.Tensor:
    unit = torch.randint(1, VOCAB_SIZE, (batch, period), generator=generator)
    tokens = torch.cat([torch.full((batch, 1), bos_id), unit, unit], dim=1)
    attentions = model(tokens, output_attentions=True).attentions
    query = torch.arange(1 + period, 2 * period)
    return torch.stack([a[:, :, query, query - period + 1].mean(dim=(0, 2)) for a in attentions])


def set_dropout(model: GPT2LMHeadModel, probability: float) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = probability


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)
    text = args.text.read_text(encoding="utf-8")
    cut = int(len(text) * (1 - HELD_OUT_FRACTION))
    tokenizer = train_tokenizer(text[:cut])
    bos_id = tokenizer.bos_token_id
    train_ids = torch.tensor(tokenizer.encode(text[:cut], add_special_tokens=False))
    held_ids = torch.tensor(tokenizer.encode(text[cut:], add_special_tokens=False))
    model = build_model(bos_id)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.98), weight_decay=0.1)
    started = time.monotonic()

    def step(lr: float, losses: list[torch.Tensor]) -> float:
        for group in optimizer.param_groups:
            group["lr"] = lr
        loss = torch.stack(losses).sum()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    def report(phase: str, n: int, loss: float) -> None:
        best = max(map(max, induction_scores(model, bos_id)))
        few = held_ids[:5_000]
        bits = bits_per_character(model, few, len(tokenizer.decode(few)), bos_id)
        seconds = time.monotonic() - started
        print(
            f"{phase} {n}: loss {loss:.3f} induction {best:.3f} held-out bpc {bits:.3f} ({seconds:.0f} s)", flush=True
        )
        model.train()

    model.train()
    set_dropout(model, 0.0)
    model.set_attn_implementation("eager")
    for n in range(args.guided_steps):
        batch = repeats_batch(32, 64, bos_id, generator)
        output = model(batch.tokens, labels=batch.labels, output_attentions=True)
        loss = step(args.lr * min(1.0, (n + 1) / 100), [output.loss, guidance(output.attentions, batch)])
        if n % 100 == 0:
            report("guided", n, loss)
            model.set_attn_implementation("eager")
    for n in range(args.repeat_steps):
        batch = repeats_batch(32, 64, bos_id, generator)
        loss = step(args.lr, [model(batch.tokens, labels=batch.labels).loss])
        if n % 100 == 0:
            report("repeats", n, loss)
    set_dropout(model, args.dropout)
    for n in range(args.mix_steps):
        tokens, batch = text_batch(train_ids, 8, bos_id, generator), repeats_batch(8, 96, bos_id, generator)
        share = min(1.0, (n + 1) / 500)  # text comes in slowly: all at once it would sweep the heads away
        losses = [share * model(tokens, labels=tokens).loss, 0.5 * model(batch.tokens, labels=batch.labels).loss]
        progress = n / args.mix_steps
        loss = step(0.5 * args.lr * (0.04 + 0.96 * 0.5 * (1 + math.cos(math.pi * progress))), losses)
        if n % 250 == 0:
            report("mix", n, loss)

    model.eval()
    args.out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    figures = {
        "command": "python scripts/train_demo_model.py " + " ".join(sys.argv[1:]),
        "seed": args.seed,
        "guided_steps": args.guided_steps,
        "repeat_steps": args.repeat_steps,
        "mix_steps": args.mix_steps,
        "learning_rate": args.lr,
        "parameters": model.num_parameters(),
        "training_seconds": round(time.monotonic() - started),
        "held_out_characters": len(text) - cut,
        "held_out_bits_per_character": bits_per_character(model, held_ids, len(text) - cut, bos_id),
        "induction_scores": [[round(s, 4) for s in layer] for layer in induction_scores(model, bos_id)],
    }
    (args.out / "training.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="a UTF-8 text; the last tenth is held out")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model and tokenizer files")
    parser.add_argument("--guided-steps", type=int, default=600)
    parser.add_argument("--repeat-steps", type=int, default=200)
    parser.add_argument("--mix-steps", type=int, default=3600)
    parser.add_argument("--lr", type=float, default=2e-3, help="highest rate; half of it in the mix")
    parser.add_argument("--dropout", type=float, default=0.1, help="in the mix phase; the repeats need none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    train(args)


if __name__ == "__main__":
    main()
