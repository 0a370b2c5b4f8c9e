"""One model to serve: where it comes from, what it is called, how and when it is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import torch

from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.config.parsing import require_known, typed
from transparent_llm_server.config.sae import saes_of_model
from transparent_llm_server.demo import DEMO_MODEL

DEMO: Final = "demo"
"""The embedded model's name."""

PINNED: Final = "pinned"
ON_DEMAND: Final = "on_demand"


@dataclass(frozen=True)
class ModelConfig:
    """One model to serve. What is unset is as the server's settings of the same name say."""

    source: str
    """A local folder, a hub name, a GGUF file, or `PLACE:FILE.gguf` for one in a folder or of the hub; or `demo`
    for the embedded model, unless a folder of that name is here."""

    alias: str
    """The name that clients use."""

    aliases: tuple[str, ...] = ()
    """Further names that clients may use."""

    revision: str | None = None
    """A branch, tag or commit of the hub, for configuration, weights and tokenizer. Unset: the newest."""

    dtype: torch.dtype | None = None
    device: str | None = None
    device_map: str | None = None
    max_memory: str | None = None
    offload_dir: Path | None = None
    quantization: str | None = None
    adapter: str | None = None
    """A folder or hub name of a LoRA adapter (PEFT), merged into the model when it is loaded."""

    saes: tuple[str, ...] = ()
    """Sparse autoencoders of it: `NAME=DIR@SITE`, or of a transcoder `NAME=DIR@SITE:SITE`."""

    load: Literal["pinned", "on_demand"] = PINNED
    """When it is loaded: at the start and for good, or when it is asked for and until others need its memory."""

    def __post_init__(self) -> None:
        saes_of_model(self.saes, (self.alias, *self.aliases))

    @classmethod
    def parse(cls, text: str) -> ModelConfig:
        """From `NAME_OR_DIR` or `ALIAS=NAME_OR_DIR`; a folder or file is called by its own name.

        Raises:
            InvalidRequestError: one of the two sides is empty.
        """
        alias, equals, source = text.partition("=")
        if os.path.exists(text) or not equals:
            alias, source = "", text
        if not source or (equals and not alias and not os.path.exists(text)):
            raise InvalidRequestError(f"--model {text!r}: write NAME_OR_DIR or ALIAS=NAME_OR_DIR")
        return cls(source=_located(source), alias=alias or _own_name(source))

    @classmethod
    def of(cls, table: Mapping[str, object], place: str) -> ModelConfig:
        """From a table `[[models]]` of a configuration file; `place` names it in errors.

        Raises:
            InvalidRequestError: no source, an unknown key, or a value of another type.
        """
        kinds = require_known(table, cls, place)
        source = table.get("source")
        if not isinstance(source, str) or not source:
            raise InvalidRequestError(f'{place} has no source: write source = "NAME_OR_DIR"')
        settings: dict[str, Any] = {key: _value(f"{place}.{key}", value, kinds[key]) for key, value in table.items()}
        return cls(**{"alias": _own_name(source), **settings, "source": _located(source)})

    @property
    def is_on_demand(self) -> bool:
        """Whether it is loaded when it is first asked for."""
        return self.load == ON_DEMAND


def _located(source: str) -> str:
    return str(DEMO_MODEL) if source == DEMO and not os.path.isdir(source) else source


def _own_name(source: str) -> str:
    """Of a folder, a file or a model of the hub; a GGUF file in one of these does not count."""
    if os.path.isfile(source):
        return Path(source).name.removesuffix(".gguf")
    place, colon, file = source.rpartition(":")
    if colon and file.endswith(".gguf"):
        return _own_name(place)
    return (Path(source).resolve().name if os.path.isdir(source) else source) or source


def _value(place: str, value: object, kind: object) -> object:
    if value == "":
        raise InvalidRequestError(f"{place} is empty: leave it out, or give it a value")
    return typed(place, value, kind)
