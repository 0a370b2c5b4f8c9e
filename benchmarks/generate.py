"""Tokens per second of generating, the run of what was generated included, beside plain Hugging Face in this process.

GPT-2 small's shape, one row, greedy, new token ids each time. Ours is a server process, and beside it the class in this
process; all have the same tokens.

    .venv/bin/python benchmarks/generate.py [--quick]
"""

from __future__ import annotations

from functools import partial

import torch
from peers import device, shapes
from peers.batches import FreshBatches
from peers.outcome import Figures, Goal, is_quick, progress, ratio_figures, report
from peers.serving import server_process
from peers.timing import in_turn, median_ms, ratio
from transformers import AutoModelForCausalLM, GPT2Config

from transparent_llm import connect
from transparent_llm.generation import Generating
from transparent_llm_server import TransformerLensTransparentLlm

GOAL = Goal("higher", 0.9)
N_PROMPT = 32


def measure(config: GPT2Config, new: int, pairs: int) -> Figures:
    with (
        shapes.saved(config) as folder,
        server_process("--model", f"gpt2={folder}") as address,
        connect(address) as llm,
    ):
        progress("loading the model in this process ...")
        plain = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", trust_remote_code=False)
        plain = plain.to(device.chosen()).eval()
        plain.generation_config.eos_token_id = None
        here = TransformerLensTransparentLlm(str(folder), device=str(device.chosen()))
        batches = FreshBatches(1, N_PROMPT, config.vocab_size)
        rows: list[list[int]] = []

        def ours(llm: Generating) -> list[int]:
            return [step.tokens[0].token_id for step in llm.generate_tokens(rows, new) if step.tokens[0] is not None]

        def theirs() -> list[int]:
            tokens = torch.tensor(rows, device=device.chosen())
            answer = plain.generate(
                tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=new, do_sample=False, pad_token_id=0
            )
            found: list[int] = answer[0, N_PROMPT:].tolist()
            return found

        def renew() -> None:
            rows[:] = batches.next()

        renew()
        generated = ours(llm)
        assert generated == theirs()[: len(generated)] == ours(here)
        assert len(generated) == new, "a token that ends a text; choose other weights"
        progress(f"{pairs} rounds of {new} tokens ...")
        run = [[*rows[0], *generated[:-1]]]
        sides = {"ours": partial(ours, llm), "hugging_face": theirs, "in_process": partial(ours, here)}
        timings = in_turn(sides, pairs, before=renew)
        of_run = in_turn({"run": lambda: llm.run_tokens(run)}, pairs, before=llm.release)
    return {
        **GOAL.figures(ratio(timings, "hugging_face", "ours")),
        **ratio_figures(ratio(timings, "hugging_face", "in_process"), "in_process_ratio"),
        "tokens_per_second": 1000 * new / median_ms(timings, "ours"),
        "hugging_face_tokens_per_second": 1000 * new / median_ms(timings, "hugging_face"),
        "run_ms": median_ms(of_run, "run"),
        "ours_ms": median_ms(timings, "ours"),
        "in_process_ms": median_ms(timings, "in_process"),
        "prompt": N_PROMPT,
        "new_tokens": new,
        "layers": config.n_layer,
        "pairs": pairs,
    }


def main() -> None:
    quick = is_quick(__doc__)
    figures = (
        measure(shapes.part_of_gpt2_small(4), new=16, pairs=5)
        if quick
        else measure(shapes.gpt2_small(), new=64, pairs=11)
    )
    report("generate", figures, quick="a quarter of the model, 16 tokens, 5 pairs" if quick else None)


if __name__ == "__main__":
    main()
