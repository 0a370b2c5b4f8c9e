"""One standard batch of mixed lengths, run once for each backend and family."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
from transformers import AutoTokenizer

from support.models.batch import ROWS
from support.models.families import FAMILIES, build_model
from support.models.reference import HuggingFaceReference
from support.servers.backends import Backend
from transparent_llm import TransparentLlm


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "family" in metafunc.fixturenames and "backend" not in metafunc.fixturenames:
        metafunc.parametrize("family", list(FAMILIES))


class Remembered:
    """The reference, whose values several backends ask for, computes each of them once."""

    def __init__(self, reference: HuggingFaceReference) -> None:
        self._reference = reference
        self._values: dict[tuple[Any, ...], Any] = {}

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def read(*arguments: Any) -> Any:
            key = (name, *arguments)
            if key not in self._values:
                self._values[key] = getattr(self._reference, name)(*arguments)
            return self._values[key]

        return read


@cache
def _reference(folder: Path) -> HuggingFaceReference:
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    reference = HuggingFaceReference(build_model(FAMILIES[folder.name]()), tokenizer, prepend_bos=False)
    reference.run_tokens(ROWS)
    return cast(HuggingFaceReference, Remembered(reference))


@pytest.fixture
def reference(family: str, family_folders: dict[str, Path]) -> HuggingFaceReference:
    """The same batch, computed by plain Hugging Face without TransformerLens."""
    return _reference(family_folders[family])


_runs: dict[tuple[str, str], TransparentLlm] = {}


@pytest.fixture
def llm(backend: Backend, family: str) -> TransparentLlm:
    """The family's model behind the backend, the standard batch run."""
    key = (backend.name, family)
    if key not in _runs:
        _runs[key] = backend.open(family)
        _runs[key].run_tokens(ROWS)
    return _runs[key]
