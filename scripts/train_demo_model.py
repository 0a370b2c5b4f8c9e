"""Train the embedded demo model: a small GPT-2 with its own BPE tokenizer and real induction heads.

    python scripts/train_demo_model.py --text PATH/tinyshakespeare.txt --out server/transparent_llm_server/demo/model

Two phases, because induction heads form in a minute on repeated random sequences alone and hardly ever
when text is mixed in from the first step:

1. repeats: sequences of random tokens with a random period, loss on the predictable part only;
2. mix: Shakespeare text and, every few steps, more repeats, so that the heads stay.

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
        bos_token_id=bos_id,
        eos_token_id=bos_id,
        pad_token_id=bos_id,
    )
    return GPT2LMHeadModel(config)


def repeats_batch(
    batch: int, length: int, bos_id: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """BOS, then random tokens repeated with a period of 4 to 32; labels only where the repeat is predictable."""
    tokens = torch.full((batch, length), bos_id)
    labels = torch.full((batch, length), IGNORED_LABEL)
    for row in range(batch):
        period = int(torch.randint(4, 33, (1,), generator=generator))
        unit = torch.randint(1, VOCAB_SIZE, (period,), generator=generator)
        tokens[row, 1:] = unit.repeat(length // period + 1)[: length - 1]
        labels[row, 1 + period :] = tokens[row, 1 + period :]
    return tokens, labels


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
def induction_scores(model: GPT2LMHeadModel, bos_id: int, period: int = 24, batch: int = 16) -> list[list[float]]:
    """[layer][head]: attention from the second copy of a random sequence to the token after the first copy."""
    model.eval()
    model.set_attn_implementation("eager")
    generator = torch.Generator().manual_seed(1234)
    unit = torch.randint(1, VOCAB_SIZE, (batch, period), generator=generator)
    tokens = torch.cat([torch.full((batch, 1), bos_id), unit, unit], dim=1)
    attentions = model(tokens, output_attentions=True).attentions
    query = torch.arange(1 + period, 2 * period)
    scores = [a[:, :, query, query - period + 1].mean(dim=(0, 2)).tolist() for a in attentions]
    model.set_attn_implementation("sdpa")
    return scores


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
        bits = bits_per_character(model, held_ids[:20_000], len(tokenizer.decode(held_ids[:20_000])), bos_id)
        seconds = time.monotonic() - started
        print(
            f"{phase} {n}: loss {loss:.3f} induction {best:.3f} held-out bpc {bits:.3f} ({seconds:.0f} s)", flush=True
        )
        model.train()

    model.train()
    set_dropout(model, 0.0)
    for n in range(args.repeat_steps):
        tokens, labels = repeats_batch(32, 64, bos_id, generator)
        loss = step(args.lr * min(1.0, (n + 1) / 100), [model(tokens, labels=labels).loss])
        if n % 200 == 0:
            report("repeats", n, loss)
    set_dropout(model, args.dropout)
    for n in range(args.mix_steps):
        tokens = text_batch(train_ids, 10, bos_id, generator)
        losses = [model(tokens, labels=tokens).loss]
        if n % 4 == 0:
            tokens, labels = repeats_batch(8, 128, bos_id, generator)
            losses.append(0.5 * model(tokens, labels=labels).loss)
        progress = n / args.mix_steps
        loss = step(args.lr * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))), losses)
        if n % 500 == 0:
            report("mix", n, loss)

    model.eval()
    args.out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
    figures = {
        "command": "python scripts/train_demo_model.py " + " ".join(sys.argv[1:]),
        "seed": args.seed,
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
    parser.add_argument("--repeat-steps", type=int, default=1200)
    parser.add_argument("--mix-steps", type=int, default=7000)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--dropout", type=float, default=0.1, help="in the mix phase; the repeats need none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    train(args)


if __name__ == "__main__":
    main()
