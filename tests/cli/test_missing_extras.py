"""The client alone: what needs more says in a sentence what is missing, and how it is installed."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import importlib.util, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "transformer_lens" else found(name, *rest)
from transparent_llm.cli import main
try:
    from transparent_llm_server import TransformerLensTransparentLlm
except ImportError as error:
    print(error)
sys.exit(main(["serve"]))
"""
WORDS = (
    "{} requires the [server] extra, and transformer_lens is not installed: run pip install 'PATH[server]', where PATH "
    "is the checkout or the wheel that the client was installed from"
)


def test_the_server_and_the_class_in_process_say_which_extra_they_need() -> None:
    finished = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=240)
    assert finished.returncode == 1
    assert finished.stdout.strip() == WORDS.format("transparent_llm_server")
    assert finished.stderr.splitlines()[-1].endswith(WORDS.format("serving"))
