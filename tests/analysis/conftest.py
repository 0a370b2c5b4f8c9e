"""The standard batch, run by each family here and by plain Hugging Face; the demo model, and two rows of it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from support.models.batch import ROWS
from support.models.families import FAMILIES, build_model
from support.models.reference import HuggingFaceReference
from support.servers.backends import local_model
from support.servers.servers import running
from transparent_llm import RemoteTransparentLlm
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.demo import DEMO_MODEL

CLEAN, CORRUPT = "My lord, the king of France, my lord", "My lord, the queen of England, my lord"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    named = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "family" in metafunc.fixturenames and not any("family" in names for names in named):
        metafunc.parametrize("family", list(FAMILIES))


@cache
def _run(folder: Path) -> TransformerLensTransparentLlm:
    llm = local_model(folder).copy()
    llm.run_tokens(ROWS)
    return llm


@cache
def _reference(folder: Path) -> HuggingFaceReference:
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    reference = HuggingFaceReference(build_model(FAMILIES[folder.name]()), tokenizer, prepend_bos=False)
    reference.run_tokens(ROWS)
    return reference


@pytest.fixture
def llm(family: str, family_folders: dict[str, Path]) -> TransformerLensTransparentLlm:
    """The family's model, the standard batch run."""
    return _run(family_folders[family])


@pytest.fixture
def reference(family: str, family_folders: dict[str, Path]) -> HuggingFaceReference:
    """The same batch, computed by plain Hugging Face without TransformerLens."""
    return _reference(family_folders[family])


@pytest.fixture
def gpt2(family_folders: dict[str, Path]) -> TransformerLensTransparentLlm:
    """One of them, for what does not depend on the family."""
    return _run(family_folders["gpt2"])


@pytest.fixture(scope="module")
def demo() -> TransformerLensTransparentLlm:
    return TransformerLensTransparentLlm(str(DEMO_MODEL))


@pytest.fixture(scope="module")
def remote(demo: TransformerLensTransparentLlm) -> Iterator[RemoteTransparentLlm]:
    with running(serving={"demo": demo}) as server, RemoteTransparentLlm(server.address) as llm:
        yield llm


@pytest.fixture(scope="module")
def rows(demo: TransformerLensTransparentLlm) -> list[list[int]]:
    """A clean and a corrupt one, of as many tokens."""
    found = [demo.to_tokens(text).tolist() for text in (CLEAN, CORRUPT)]
    shortest = min(map(len, found))
    return [row[:shortest] for row in found]
