"""Serves a tiny GPT-2 with a sparse autoencoder and a chat template, in this process, until its input ends."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[4] / "tests"))

from support.models.families import D_MODEL, FAMILIES, build_model, build_tokenizer
from support.models.saes import random_sae
from support.servers.servers import running
from transparent_llm_server import TransformerLensTransparentLlm

tokenizer = build_tokenizer()
tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}mill:"
saes = {"random": (random_sae(D_MODEL), "residual_out.0")}
model = TransformerLensTransparentLlm("tiny", hf_model=build_model(FAMILIES["gpt2"]()), tokenizer=tokenizer, saes=saes)
with running(serving={"tiny": model}) as server:
    print(f"ready: {server.address}", flush=True)
    sys.stdin.read()
