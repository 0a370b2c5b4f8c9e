"""Whether what is loaded is what the files hold: nothing made up, nothing left over, nothing read as something else.

Transformers fills what is missing with random numbers and leaves out what it has no place for. Such a model would pass
all comparisons with itself, and be another one at every start.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, TypedDict

import torch

from transparent_llm.errors import ModelRefusedError
from transparent_llm_server.models.loading.known_tensors import (
    ABSENT,
    LEFT_OVER,
    is_known,
    layer_of,
    next_token_layers,
)
from transparent_llm_server.models.loading.progress import alone
from transparent_llm_server.models.loading.refusal import listed, printable, refused, refusing
from transparent_llm_server.models.loading.weight_files import StoredTensor

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

_Stored = Mapping[str, StoredTensor]


class LoadingInfo(TypedDict):
    """What transformers says of the tensors that it read."""

    missing_keys: Collection[str]
    unexpected_keys: Collection[str]
    mismatched_keys: Collection[tuple[str, Collection[int], Collection[int]]]
    """(name, shape in the files, shape in the model)"""

    error_msgs: Collection[str]


_SPARE = 2
"""How many times as many weights as the files hold may be built before it is said which of them are missing."""

_BUFFER_BYTES = 2**30
"""What masks and tables of a model may take beside as much as its weights do."""

_HEADS = re.compile(
    r"(?:^|\.)(?:score|classifier|classification_head|qa_outputs|v_head|value_head|multiple_choice_head)\."
)


def outline(config: PretrainedConfig, name: str) -> torch.nn.Module:
    """The model of this configuration without any weight, which takes next to no time and memory.

    Raises:
        ModelRefusedError: it cannot be built.
    """
    from transformers import AutoModelForCausalLM

    with refusing(
        lambda words: f"{name!r} is not served: no language model can be built from its config.json: {words}"
    ):
        with alone(), torch.device("meta"):
            model: torch.nn.Module = AutoModelForCausalLM.from_config(
                copy.deepcopy(config), dtype=torch.float32, attn_implementation="eager", trust_remote_code=False
            )
    return model


def require_fitting(stored: _Stored, model: torch.nn.Module, config: PretrainedConfig, name: str) -> None:
    """Compare the headers of the files with the outline of a model, before anything is read or takes memory.

    Raises:
        ModelRefusedError: sizes that are not those of the files, or numbers that are no floating numbers.
    """
    _require_room(stored, model, name)
    if getattr(config, "quantization_config", None) is not None:
        return  # what its tensors are is known to transformers alone
    state = model.state_dict()
    places = {key: _place(key, state, model) for key in stored}
    _require_once(places, name)
    shapes = {key: (tensor.shape, tuple(state[places[key]].shape)) for key, tensor in stored.items() if places[key]}
    wrong = {key: (got, wanted) for key, (got, wanted) in shapes.items() if got != wanted}
    if wrong:
        raise _wrong_shape(name, wrong)
    buffers = {key for key, _ in model.named_buffers()}
    for key, tensor in stored.items():
        if not tensor.is_plain and places[key] not in buffers and not is_known(key, LEFT_OVER):
            raise ModelRefusedError(
                f"{name!r} is not served: tensor {printable(key)} has the type {tensor.kind}, where weights must be "
                "floating numbers of 16 bits or more; if it is quantized, fetch the model that it was made from",
                metadata={"tensor": printable(key), "dtype": tensor.kind},
            )


def require_exact(model: PreTrainedModel, info: LoadingInfo, stored: _Stored, name: str) -> None:
    """Compare what was loaded with what the files hold.

    Raises:
        ModelRefusedError: weights that are missing, left over, of another shape, or not tied although they should be.
    """
    if info["error_msgs"]:
        raise refused(name, printable(" ".join(info["error_msgs"]))[:300])
    if info["mismatched_keys"]:
        raise _wrong_shape(name, {key: (tuple(got), tuple(wanted)) for key, got, wanted in info["mismatched_keys"]})
    missing = _missing(model, info, stored)
    left_over = _left_over(model, info, stored)
    if missing or left_over:
        raise _differs(model, missing, left_over, name)
    _require_experts(stored, name)
    _require_tied(model, name)


def require_ready(model: PreTrainedModel) -> None:
    """Look at a model that was handed over: whether all of its weights are there.

    Raises:
        ModelRefusedError: some are placeholders, or changed on the way by an adapter.
    """
    name = type(model).__name__
    if getattr(model, "peft_config", None) or getattr(model, "_hf_peft_config_loaded", False):
        raise ModelRefusedError(f"{name} has an adapter: merge it (peft: merge_and_unload), and pass the result")
    if not hasattr(model, "config") or not hasattr(model, "get_output_embeddings"):
        raise ModelRefusedError(f"{name} is not a causal language model of transformers")
    empty = [
        key
        for owner, module in model.named_modules()
        for key, tensor in _own_tensors(owner, module)
        if torch.nn.parameter.is_lazy(tensor) or (tensor.is_meta and getattr(module, "_hf_hook", None) is None)
    ]
    if empty:
        raise ModelRefusedError(
            f"{name} is not served: {len(empty)} of its weights have no values yet: {listed(empty)}; load them first",
            metadata={"missing": str(len(empty))},
        )
    if model.get_output_embeddings() is None:
        raise ModelRefusedError(f"{name} has no language-model head; load it with AutoModelForCausalLM")


def _require_once(places: Mapping[str, str], name: str) -> None:
    """Of two tensors for one weight, transformers takes one."""
    taken: dict[str, str] = {}
    for key, place in places.items():
        if place and taken.setdefault(place, key) != key:
            raise ModelRefusedError(
                f"{name!r} is not served: its files hold {printable(place)} twice, as {printable(taken[place])} and as "
                f"{printable(key)}"
            )


def _require_room(stored: _Stored, model: torch.nn.Module, name: str) -> None:
    """What is missing would be made up in memory before anybody could say that it is."""
    held = sum(tensor.nbytes * 2 if not tensor.is_plain else tensor.elements for tensor in stored.values())
    wanted = sum(parameter.numel() for parameter in model.parameters())
    if wanted > _SPARE * held:
        raise ModelRefusedError(
            f"{name!r} is not served: its config.json describes {wanted} weights, its files hold {held}: one of "
            "them belongs to another model, or is incomplete",
            metadata={"described": str(wanted), "held": str(held)},
        )
    buffers = sum(buffer.nbytes for buffer in model.buffers())
    if buffers > _BUFFER_BYTES + 4 * held:
        raise ModelRefusedError(
            f"{name!r} is not served: masks and tables of its config.json would take {buffers} bytes; the length of "
            "its context cannot be right"
        )


def _missing(model: PreTrainedModel, info: LoadingInfo, stored: _Stored) -> set[str]:
    """Weights that no file has. Some that the model's class does not want to hear of are asked for all the same."""
    state = model.state_dict()
    unheard = _matching(state, model._keys_to_ignore_on_load_missing)
    placed = {_place(key, state, model) for key in stored} | set(model.all_tied_weights_keys)
    missing = set(info["missing_keys"]) | {key for key in unheard if key not in placed}
    buffers = {key for key, _ in model.named_buffers()}
    return {key for key in missing if key not in buffers or not is_known(key, ABSENT)}


def _left_over(model: PreTrainedModel, info: LoadingInfo, stored: _Stored) -> set[str]:
    """Tensors without a place. Those that the model's class ignores are looked at too, in layers that it does not have:
    some classes ignore a layer by its number."""
    state = model.state_dict()
    layers = {layer_of(key) for key in state}
    ignored = {
        key for key in _matching(stored, model._keys_to_ignore_on_load_unexpected) if layer_of(key) not in layers
    }
    left_over = set(info["unexpected_keys"]) | {key for key in ignored if not _place(key, state, model)}
    next_token = next_token_layers(stored) - layers
    return {key for key in left_over if not is_known(key, LEFT_OVER) and layer_of(key) not in next_token}


def _matching(names: Collection[str], patterns: Collection[str] | None) -> set[str]:
    return {name for name in names for pattern in patterns or () if re.search(pattern, name)}


def _place(key: str, state: Collection[str], model: PreTrainedModel) -> str:
    """Under which name the model has a tensor of a file, with or without its prefix; empty where it is made of it."""
    prefix = f"{model.base_model_prefix}."
    return next((name for name in (key, f"{prefix}{key}", key.removeprefix(prefix)) if name in state), "")


def _differs(model: PreTrainedModel, missing: set[str], left_over: set[str], name: str) -> ModelRefusedError:
    parts, kind = [], type(model).__name__
    if missing:
        parts.append(f"of the weights of {kind}, its files lack {listed(missing)}, which would be random numbers")
    if left_over:
        parts.append(f"{kind} has no place for {listed(left_over)} of its files")
    return ModelRefusedError(
        f"{name!r} is not served: {'; '.join(parts)}; {_advice(model, missing, left_over)}",
        metadata={"missing": str(len(missing)), "left_over": str(len(left_over))},
    )


def _advice(model: PreTrainedModel, missing: set[str], left_over: set[str]) -> str:
    """What it looks like, and what to do."""
    layers = {layer_of(key) for key in model.state_dict()} - {""}
    if any(_HEADS.search(key) for key in left_over):
        return "it looks like a classifier, or another model that is not a language model"
    if any(layer_of(key) and layer_of(key) not in layers for key in left_over):
        return (
            f"its config.json says {len(layers)} layers, but its files have more: correct it, or fetch the model again"
        )
    if missing and missing <= _head(model):
        return "it looks like a base model: save it with its language-model head (AutoModelForCausalLM)"
    whole = {layer for layer in layers if all(key in missing for key in model.state_dict() if layer_of(key) == layer)}
    if whole:
        return f"there is nothing for {listed(whole)}: correct the number of layers in config.json, or fetch it again"
    return "fetch it again, or save it again from the model that was trained"


def _head(model: PreTrainedModel) -> set[str]:
    head = model.get_output_embeddings()
    name = next((name for name, module in model.named_modules() if module is head), None)
    return set() if name is None else {f"{name}.{key}" for key in head.state_dict()}


def _wrong_shape(name: str, shapes: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]) -> ModelRefusedError:
    key = min(shapes)
    got, wanted = shapes[key]
    more = f", and {len(shapes) - 1} more" if len(shapes) > 1 else ""
    return ModelRefusedError(
        f"{name!r} is not served: tensor {printable(key)} has the shape {list(got)}, by its config.json it is "
        f"{list(wanted)}{more}; one of them belongs to another model",
        metadata={"tensor": printable(key), "got": str(list(got)), "expected": str(list(wanted))},
    )


def _require_experts(stored: _Stored, name: str) -> None:
    """Experts are put together in the order of their numbers, whatever these are: none may be missing between them."""
    numbers: dict[str, set[int]] = {}
    for key in stored:
        found = re.match(r"(.*\.experts\.)([0-9]+)\.", key)
        if found:
            numbers.setdefault(found[1], set()).add(int(found[2]))
    for experts, seen in numbers.items():
        lacking = next((number for number in range(len(seen)) if number not in seen), None)
        if lacking is not None:
            raise refused(name, f"its files lack {printable(experts)}{lacking}")


def _require_tied(model: PreTrainedModel, name: str) -> None:
    """A weight that is no tensor of the files must be the one that it is tied to."""
    for target, source in model.all_tied_weights_keys.items():
        one, other = (model.get_parameter_or_buffer(key) for key in (target, source))
        if one is not other and not one.is_meta and not other.is_meta and not torch.equal(one, other):
            raise refused(name, f"{target} is not {source}, to which it is tied")


def _own_tensors(owner: str, module: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    held = {**module._parameters, **module._buffers}
    return [(f"{owner}.{key}".lstrip("."), tensor) for key, tensor in held.items() if tensor is not None]
