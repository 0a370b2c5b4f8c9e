"""An adapter (LoRA, as PEFT saves it), merged into its model at load: W + scale * B A, all of it or nothing.

Merged, the model is one of its kind, with hooks, parts and sums as any other. What PEFT would do in another way than
that is refused by the name of its setting, so that no adapter is half applied.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from transparent_llm.errors import InvalidRequestError, ModelRefusedError
from transparent_llm_server.models.loading.folder import ADAPTER, settings_of
from transparent_llm_server.models.loading.origin import Origin
from transparent_llm_server.models.loading.refusal import listed, printable, refusing
from transparent_llm_server.models.loading.weight_files import StoredTensor, tensors_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SETTINGS, _WEIGHTS, _PICKLE = ADAPTER
_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<which>[AB])\.weight")
_LARGEST_RANK = 2**16

_PLAIN_BEGINNINGS = (None, True, False, "gaussian", "orthogonal", "eva")
"""Ways to begin the training that leave the model's own weights as they are."""

_UNDERSTOOD = frozenset(
    {
        *("peft_type", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern", "fan_in_fan_out"),
        *("bias", "modules_to_save", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    }
)
"""Settings that are applied, or that say which tensors there are, which the tensors say themselves."""

_OF_TRAINING = frozenset(
    {
        *("task_type", "inference_mode", "base_model_name_or_path", "revision", "lora_dropout", "peft_version"),
        *("init_lora_weights", "loftq_config", "eva_config", "corda_config", "ensure_weight_tying", "runtime_config"),
        *("auto_mapping", "megatron_core", "qalora_group_size", "lora_ga_config"),
    }
)
"""Settings of how it was trained or made, which change nothing of what it is."""


@dataclass(frozen=True)
class Merged:
    """What was merged into a model."""

    name: str
    weights: int

    def __str__(self) -> str:
        return f"{self.name}, merged into {self.weights} weights"


@torch.no_grad()
def merge(hf_model: PreTrainedModel, adapter: Origin) -> Merged:
    """Change the weights of a model by an adapter, each in float32 at least.

    Raises:
        InvalidRequestError: the folder holds no adapter.
        ModelRefusedError: it is of another kind or for another model, or damaged.
    """
    name = adapter.name
    settings = _settings(adapter)
    stored = _stored(adapter)
    factors, whole = _sorted(stored, name)
    _require_untied(hf_model, [*factors, *whole], name)
    for weight, pair in factors.items():
        _require_pair(hf_model, weight, pair, stored, name)
    for weight, tensor in whole.items():
        _require_shape(hf_model, weight, stored[tensor].shape, name)
    from safetensors import safe_open

    with (
        refusing(lambda words: f"the adapter {name!r} is not merged: it cannot be read: {words}"),
        safe_open(adapter.folder / _WEIGHTS, "pt") as file,
    ):
        for weight, pair in factors.items():
            a, b = (file.get_tensor(pair[which]) for which in "AB")
            _add(hf_model, weight, a, b, _scale(settings, weight, a.shape[0], name))
        for weight, tensor in whole.items():
            target = hf_model.get_parameter(weight)
            target.copy_(file.get_tensor(tensor).to(target.dtype))
    return Merged(name, len(factors) + len(whole))


def _settings(adapter: Origin) -> dict[str, object]:
    name = adapter.name
    if (adapter.folder / _PICKLE).exists() and not (adapter.folder / _WEIGHTS).exists():
        raise InvalidRequestError(
            f"the adapter {name!r} is a pickle ({_PICKLE}), which can run code when it is read; save it as {_WEIGHTS} "
            "(peft: save_pretrained)"
        )
    for file in (_SETTINGS, _WEIGHTS):
        if not (adapter.folder / file).exists():
            raise InvalidRequestError(f"{name!r} is no adapter: there is no {file} in its folder")
    settings = settings_of(adapter.folder, _SETTINGS, name) or {}
    if settings.get("peft_type") != "LORA":
        kind = printable(repr(settings.get("peft_type")))[:40]
        raise _refused(name, f"its peft_type is {kind}, and only LORA can be merged here; merge it with peft itself")
    for key, value in settings.items():
        if value and key not in _UNDERSTOOD | _OF_TRAINING:
            raise _refused(
                name, f"it sets {printable(key)}, which is not understood here; merge it with peft (merge_and_unload)"
            )
    if settings.get("init_lora_weights") not in _PLAIN_BEGINNINGS:
        how = printable(repr(settings["init_lora_weights"]))[:40]
        raise _refused(
            name, f"its init_lora_weights is {how}, which changes the model's own weights; merge it with peft"
        )
    return settings


def _stored(adapter: Origin) -> dict[str, StoredTensor]:
    stored = dict(tensors_of(adapter.folder / _WEIGHTS, adapter.name))
    odd = [tensor for tensor, each in stored.items() if not each.is_plain]
    if not stored or odd:
        raise _refused(
            adapter.name, f"its tensors {listed(odd)} are no floating numbers" if odd else "it has no tensor"
        )
    return stored


def _sorted(stored: Mapping[str, StoredTensor], name: str) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
    """Weight of the model -> its two factors, and weight -> the tensor that takes its place."""
    factors: dict[str, dict[str, str]] = {}
    whole: dict[str, str] = {}
    for tensor in stored:
        if not tensor.startswith(_PREFIX):
            raise _refused(name, f"its tensor {printable(tensor)} does not begin with {_PREFIX}, as PEFT's do")
        own = tensor.removeprefix(_PREFIX)
        found = _FACTOR.fullmatch(own)
        if found:
            factors.setdefault(f"{found['module']}.weight", {})[found["which"]] = tensor
        elif ".lora_" in f".{own}":
            raise _refused(name, f"its tensor {printable(tensor)} is not understood here; merge it with peft")
        else:
            whole[own.replace(".base_layer.", ".")] = tensor
    lacking = [weight for weight, pair in factors.items() if len(pair) != 2]
    if lacking:
        raise _refused(name, f"one of the two factors is missing for {listed(lacking)}")
    return factors, whole


def _require_pair(
    hf_model: PreTrainedModel, weight: str, pair: Mapping[str, str], stored: Mapping[str, StoredTensor], name: str
) -> None:
    a, b = (stored[pair[which]].shape for which in "AB")
    if len(a) != 2 or len(b) != 2 or a[0] != b[1] or not 0 < a[0] <= _LARGEST_RANK:
        raise _refused(name, f"its factors for {printable(weight)} have the shapes {list(a)} and {list(b)}")
    shape = (b[0], a[1])
    _require_shape(hf_model, weight, shape[::-1] if _is_transposed(hf_model, weight) else shape, name)


def _require_shape(hf_model: PreTrainedModel, weight: str, shape: tuple[int, ...], name: str) -> None:
    try:
        wanted = tuple(hf_model.get_parameter(weight).shape)
    except AttributeError as error:
        raise _refused(
            name,
            f"the model has no {printable(weight)}: the adapter was made for another one, or for its training class",
        ) from error
    if wanted != shape:
        raise _refused(
            name,
            f"it changes {printable(weight)} as if its shape were {list(shape)}, in the model it is {list(wanted)}: "
            "the adapter was made for another one",
        )


def _require_untied(hf_model: PreTrainedModel, weights: list[str], name: str) -> None:
    """Of one weight in two places PEFT changes one."""
    tied = hf_model.all_tied_weights_keys
    shared = [weight for weight in weights if weight in tied or weight in tied.values()]
    if shared:
        raise _refused(
            name,
            f"it changes {listed(shared)}, which the model uses in two places; merge it with peft (merge_and_unload) "
            "and save that with save_pretrained",
        )


def _scale(settings: Mapping[str, object], weight: str, rank: int, name: str) -> float:
    """alpha / r, or alpha / sqrt(r), where a module may have its own alpha and r."""
    module = weight.removesuffix(".weight")
    r = _of_pattern(settings, "rank_pattern", module, settings.get("r"))
    alpha = _of_pattern(settings, "alpha_pattern", module, settings.get("lora_alpha"))
    if r != rank:
        raise _refused(name, f"its settings say rank {printable(repr(r))[:40]} for {module}, its tensors have {rank}")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise _refused(name, f"its lora_alpha is {printable(repr(alpha))[:40]}, where it must be a number")
    return float(alpha / (rank**0.5 if settings.get("use_rslora") else rank))


def _of_pattern(settings: Mapping[str, object], key: str, module: str, otherwise: object) -> object:
    """What is said of a module by the end of its name. Patterns that are more than names could take for ever."""
    patterns = settings.get(key) or {}
    if not isinstance(patterns, dict) or any(not re.fullmatch(r"\^?[\w.]+", pattern) for pattern in patterns):
        raise ModelRefusedError(f"the adapter's {key} holds more than names of modules; merge it with peft")
    for pattern, value in patterns.items():
        own = pattern.removeprefix("^")
        if module == own or (module.endswith(f".{own}") and not pattern.startswith("^")):
            return value
    return otherwise


def _add(hf_model: PreTrainedModel, weight: str, a: torch.Tensor, b: torch.Tensor, scale: float) -> None:
    target = hf_model.get_parameter(weight)
    wide = torch.promote_types(target.dtype, torch.float32)
    change = scale * (b.to(wide) @ a.to(wide))
    if _is_transposed(hf_model, weight):
        change = change.T
    target.copy_((target.to(wide) + change.to(target.device)).to(target.dtype))


def _is_transposed(hf_model: PreTrainedModel, weight: str) -> bool:
    """Whether the module keeps its weight as [in, out], as GPT-2's do."""
    from transformers.pytorch_utils import Conv1D

    try:
        return isinstance(hf_model.get_submodule(weight.rpartition(".")[0]), Conv1D)
    except AttributeError:
        return False


def _refused(name: str, why: str) -> ModelRefusedError:
    return ModelRefusedError(f"the adapter {name!r} is not merged: {why}", metadata={"adapter": name})
