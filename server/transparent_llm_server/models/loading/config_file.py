"""The settings files of a model, read before transformers reads them: what is damaged or wants code is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.models.loading.folder import CONFIG, SETTINGS, cannot_load, settings_of, without_config
from transparent_llm_server.models.loading.refusal import printable, refused

LAYERS = frozenset({"num_hidden_layers", "n_layer", "n_layers", "num_layers"})
"""Each is at least one tensor of the files."""

WIDTHS = frozenset(
    {
        *("vocab_size", "hidden_size", "n_embd", "d_model", "embedding_size", "word_embed_proj_dim"),
        *("num_attention_heads", "n_head", "n_heads", "num_heads", "num_key_value_heads", "head_dim"),
        *("intermediate_size", "n_inner", "ffn_dim", "moe_intermediate_size"),
        *("num_experts", "num_local_experts", "n_routed_experts", "num_experts_per_tok"),
    }
)
"""Sizes of weights: none can be more than the numbers that the files hold."""

LENGTHS = frozenset({"max_position_embeddings", "n_positions", "max_seq_len", "seq_length"})
"""Of contexts, which need no weight."""

_LARGEST = 2**31
_MAY_BE_ZERO = frozenset({"num_experts", "num_local_experts", "n_routed_experts", "num_experts_per_tok"})
"""Some dense models of a family that has experts say that they have none."""

_OTHER_WEIGHTS = ("transformers_weights", "fusion_config", "distributed_config")
"""Settings that make transformers load something else than the files that are checked here."""


def read_settings(folder: Path, name: str) -> dict[str, object]:
    """What the model's configuration says.

    Raises:
        InvalidRequestError: there is none.
        ModelRefusedError: a file of settings is damaged, the configuration wants code of its own to run, or its sizes
            cannot be.
    """
    held = {file: settings_of(folder, file, name) for file in SETTINGS}
    config = held[CONFIG]
    if config is None:
        raise InvalidRequestError(cannot_load(name, without_config(folder)))
    _require_known(config, name)
    _require_own_files(held["tokenizer_config.json"] or {}, name)
    for setting in _OTHER_WEIGHTS:
        if config.get(setting) is not None:
            raise refused(
                name, f"sets {setting}; its weights are read from safetensors files with the usual names only", CONFIG
            )
    require_sizes(config, name)
    return config


def require_sizes(config: Mapping[str, object], name: str) -> None:
    """Refuse sizes that no model has.

    Raises:
        ModelRefusedError: with the size.
    """
    for where, value in _sizes(config):
        _require_size(where, value, name)


def require_held(config: Mapping[str, object], tensors: int, numbers: int, name: str) -> None:
    """Refuse sizes that the files cannot have, before anything is built of them: that would take time and memory.

    Raises:
        ModelRefusedError: with the size, and what the files hold.
    """
    for where, value in _sizes(config):
        key = where.rpartition(".")[2]
        largest = tensors if key in LAYERS else numbers if key in WIDTHS else _LARGEST
        if any(isinstance(number, int) and number > largest for number in _numbers(value)):
            what = f"{tensors} tensors" if key in LAYERS else f"{numbers} numbers"
            raise refused(name, f"says {where} = {printable(str(value))}, but the files hold {what} in all", CONFIG)


def _require_known(config: Mapping[str, object], name: str) -> None:
    """Code that lies beside a model is never run; most models that bring some are known to transformers without."""
    from transformers import CONFIG_MAPPING, __version__

    kind = config.get("model_type")
    if isinstance(kind, str) and kind in CONFIG_MAPPING:
        return
    if config.get("auto_map"):
        raise refused(
            name,
            "requires running its own code (auto_map), which is never done, and transformers "
            f"{__version__} has none for model_type {printable(repr(kind))}",
            CONFIG,
        )
    raise refused(
        name, f"says model_type {printable(repr(kind))}, which transformers {__version__} does not know", CONFIG
    )


def _require_own_files(tokenizer_config: Mapping[str, object], name: str) -> None:
    """Transformers reads the tokenizer from a file that is named here, wherever that is."""
    files = tokenizer_config.get("fast_tokenizer_files") or []
    if not isinstance(files, list) or any(not isinstance(file, str) or Path(file).name != file for file in files):
        raise refused(
            name, "names files other than those in its folder (fast_tokenizer_files)", "tokenizer_config.json"
        )


def _sizes(config: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for key, value in config.items():
        if key in LAYERS | WIDTHS | LENGTHS and value is not None:
            yield key, value
        elif key == "text_config" and isinstance(value, dict):
            yield from ((f"{key}.{inner}", size) for inner, size in _sizes(value))


def _require_size(where: str, value: object, name: str) -> None:
    smallest = 0 if where.rpartition(".")[2] in _MAY_BE_ZERO else 1
    numbers = list(_numbers(value))
    if not numbers or any(type(number) is not int or not smallest <= number <= _LARGEST for number in numbers):
        raise refused(
            name, f"says {where} = {printable(repr(value))[:40]}; it must be a number from {smallest}", CONFIG
        )


def _numbers(value: object) -> list[object]:
    """Some families have a size for each layer."""
    return value if isinstance(value, list) else [value]
