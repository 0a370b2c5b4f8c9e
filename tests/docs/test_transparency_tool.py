"""The recipe for llm-transparency-tool: its lines run, with a stand-in for the modules of the app that they touch."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from transparent_llm.demo import server_process

PAGE = Path(__file__).parents[2] / "docs" / "TRANSPARENCY_TOOL.md"
LOCAL = """
class TransformerLensTransparentLlm:
    def __init__(self, **arguments):
        raise AssertionError("a model would be loaded here")
"""
APP = """
import torch
from llm_transparency_tool.models.tlens_model import TransformerLensTransparentLlm

assert __name__ == "__main__"
stateless = TransformerLensTransparentLlm(
    model_name="demo", hf_model=None, tokenizer=None, device="cpu", dtype=torch.float32, supported_model_name=None
)
model = stateless.copy()
assert isinstance(model, TransformerLensTransparentLlm)
model.run(["My lord, the king"])
tokens = model.tokens()[0]
last = model.residual_out(0)[0][-1]
n_axes = model.decomposed_attn(0, 1).ndim
print(model.model_info().n_layers, len(tokens), model.unembed(last, normalize=True).shape[0], n_axes)
"""


def test_the_apps_object_is_the_remote_one(tmp_path: Path) -> None:
    (lines,) = re.findall(r"```python no-run\n(# remote_app.py\n.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "remote_app.py").write_text(lines, encoding="utf-8")
    for module, text in (("models/tlens_model.py", LOCAL), ("server/app.py", APP)):
        path = tmp_path / "llm_transparency_tool" / module
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
    with server_process() as address:
        environment = {
            **os.environ,
            "TRANSPARENT_LLM_ADDRESS": address,
            "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
        }
        finished = subprocess.run(
            [sys.executable, "remote_app.py"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    assert finished.returncode == 0, finished.stderr
    n_layers, n_tokens, d_vocab, n_axes = map(int, finished.stdout.split())
    assert (n_layers, d_vocab, n_axes) == (4, 1024, 4)
    assert n_tokens > 3
