"""Each benchmark takes the device of its models as `--device`, and says at once that it is not there."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

from support.deploy.checkout import ROOT, needs_a_checkout

sys.path.append(str(ROOT / "benchmarks"))
from peers import suite

pytestmark = needs_a_checkout
FOLDER = ROOT / "benchmarks"
SCRIPTS = [*sorted(FOLDER.glob("*.py")), *sorted((FOLDER / "analysis").glob("*.py"))]
MISSING = f"cuda:{torch.cuda.device_count()}"


@pytest.mark.parametrize("script", [*SCRIPTS, Path(suite.__file__)], ids=lambda script: script.stem)
def test_a_device_that_is_not_there_is_refused_at_once(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(script), "--device", MISSING])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    assert ended.value.code == 2
    message = capsys.readouterr().err
    assert (
        f"error: device '{MISSING}' is not available: {torch.cuda.device_count()} CUDA devices are visible" in message
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_no_model_is_loaded_elsewhere(script: Path) -> None:
    """Servers are started by `peers.serving` and `peers.replicas`, which say where; those of its own process here."""
    code = script.read_text(encoding="utf-8")
    assert "transparent_llm.demo" not in code
    n_loaded = len(re.findall(r"TransformerLensTransparentLlm\(|from_pretrained\(|HookedCache\(|Traced\(", code))
    assert len(re.findall(r"device\.chosen\(\)", code)) >= n_loaded
