"""Train the embedded demo model: a small GPT-2 with its own BPE tokenizer and real induction heads.

    python scripts/train_demo_model.py --text PATH/tinyshakespeare.txt --out server/transparent_llm_server/demo/model

Every step has a batch of Shakespeare and a batch of repeats: a random sequence and, at a random distance, the same
again. At this size induction heads hardly ever form by themselves in an hour on two cores, so for the first part of the
training a second loss on the repeats points one head of the first layer at the token before, and one head of the second
layer at the token that followed the first copy. Then this guidance fades out, and nothing holds the heads any more but
that they predict well.

The last tenth of the text is never trained on, neither by the tokenizer nor by the model. The script
writes model.safetensors, config.json, the tokenizer files and training.json (the command, the schedule
and the measured held-out bits per character and induction scores).
"""

from __future__ import annotations

import argparse
import json
import math
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


def guidance_weight(progress: float) -> float:
    """Full for half of the training, gone for its last quarter."""
    return min(1.0, max(0.0, (0.75 - progress) / 0.25))


def text_batch(ids: torch.Tensor, batch: int, bos_id: int, generator: torch.Generator) -> torch.Tensor:
    starts = torch.randint(0, len(ids) - CONTEXT, (batch,), generator=generator)
    rows = torch.stack([ids[start : start + CONTEXT - 1] for start in starts.tolist()])
    return torch.cat([torch.full((batch, 1), bos_id), rows], dim=1)


@torch.no_grad()
def bits_per_character(model: GPT2LMHeadModel, ids: torch.Tensor, characters: int, bos_id: int) -> float:
    """Total negative log2-likelihood of the text, in windows that each begin again after BOS, per character."""
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


@dataclass(frozen=True)
class Corpus:
    """The text as token ids, its last tenth apart."""

    tokenizer: PreTrainedTokenizerFast
    train_ids: torch.Tensor
    held_ids: torch.Tensor
    held_characters: int

    @classmethod
    def read(cls, path: Path) -> Corpus:
        text = path.read_text(encoding="utf-8")
        split = int(len(text) * (1 - HELD_OUT_FRACTION))
        tokenizer = train_tokenizer(text[:split])
        train_ids, held_ids = (
            torch.tensor(tokenizer.encode(part, add_special_tokens=False)) for part in (text[:split], text[split:])
        )
        return cls(tokenizer, train_ids, held_ids, len(text) - split)


def losses_of_a_step(
    model: GPT2LMHeadModel, corpus: Corpus, guided: float, generator: torch.Generator
) -> list[torch.Tensor]:
    """Text, repeats, and as long as it lasts the guidance of two heads."""
    bos_id = corpus.tokenizer.bos_token_id
    tokens, batch = text_batch(corpus.train_ids, 8, bos_id, generator), repeats_batch(12, 96, bos_id, generator)
    losses = [model(tokens, labels=tokens).loss]
    model.set_attn_implementation("eager")  # the other one gives no attention matrices
    output = model(batch.tokens, labels=batch.labels, output_attentions=True)
    model.set_attn_implementation("sdpa")
    losses.append(0.5 * output.loss)
    if guided > 0:
        losses.append(guided * guidance(output.attentions, batch))
    return losses


def update(model: GPT2LMHeadModel, optimizer: torch.optim.Optimizer, rate: float, losses: list[torch.Tensor]) -> float:
    for group in optimizer.param_groups:
        group["lr"] = rate
    loss = torch.stack(losses).sum()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def report(model: GPT2LMHeadModel, corpus: Corpus, n: int, loss: float, seconds: float) -> None:
    """A line on where the training is, on a part of the held-out text."""
    bos_id, few = corpus.tokenizer.bos_token_id, corpus.held_ids[:5_000]
    best = max(map(max, induction_scores(model, bos_id)))
    bits = bits_per_character(model, few, len(corpus.tokenizer.decode(few)), bos_id)
    print(f"{n}: loss {loss:.3f} induction {best:.3f} held-out bpc {bits:.3f} ({seconds:.0f} s)", flush=True)
    model.train()


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)
    corpus = Corpus.read(args.text)
    if args.start:
        model = GPT2LMHeadModel.from_pretrained(args.start, trust_remote_code=False)
    else:
        model = build_model(corpus.tokenizer.bos_token_id)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, betas=(0.9, 0.98), weight_decay=0.1)
    started = time.monotonic()
    model.train()
    set_dropout(model, args.dropout)
    for n in range(args.steps):
        progress = n / args.steps
        guided = 0.0 if args.start else guidance_weight(progress)
        rate = args.lr * min(1.0, (n + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        loss = update(model, optimizer, rate, losses_of_a_step(model, corpus, guided, generator))
        if n % 250 == 0:
            report(model, corpus, n, loss, time.monotonic() - started)
    save(model, corpus, args, time.monotonic() - started)


def save(model: GPT2LMHeadModel, corpus: Corpus, args: argparse.Namespace, seconds: float) -> None:
    """Weights, configuration, tokenizer and what was measured."""
    model.eval()
    args.out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(args.out)
    corpus.tokenizer.save_pretrained(args.out)
    bos_id = corpus.tokenizer.bos_token_id
    figures = {
        "steps": args.steps,
        "learning_rate": args.lr,
        "dropout": args.dropout,
        "seed": args.seed,
        "parameters": model.num_parameters(),
        "training_seconds": round(seconds),
        "held_out_characters": corpus.held_characters,
        "held_out_bits_per_character": bits_per_character(model, corpus.held_ids, corpus.held_characters, bos_id),
        "induction_scores": [[round(s, 4) for s in layer] for layer in induction_scores(model, bos_id)],
    }
    (args.out / "training.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, required=True, help="a UTF-8 text; the last tenth is held out")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model and tokenizer files")
    parser.add_argument("--start", type=Path, help="go on from the model in this folder, without guidance")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--lr", type=float, default=2e-3, help="highest learning rate")
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    train(args)


if __name__ == "__main__":
    main()
