"""A model's digest: equal digests give equal values. All numbers pass here once, so here they are looked at too."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from transparent_llm.errors import ModelRefusedError
from transparent_llm_server.models.placement.quantization import plain_parts

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

_NOT_THE_MODEL = ("_name_or_path", "transformers_version", "_attn_implementation", "attn_implementation", "torch_dtype")


@contextmanager
def hashing(
    model: torch.nn.Module,
    config: PretrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    quantization: str | None = None,
) -> Iterator[Future[str]]:
    """Within this block the model's digest is made, in a thread beside, of the model as it is where the block begins:
    SHA-256 (hex) over configuration, tokenizer and every weight with its name, dtype and shape.

    Its result raises:
        ModelRefusedError: a weight has elements that are not finite.
    """
    begun = _beginning(config, tokenizer, quantization)
    weights = sorted(model.state_dict().items())
    with ThreadPoolExecutor(1, "digest") as beside:
        digest = beside.submit(_finished, begun, model, weights)
        if any(tensor.is_meta for _, tensor in weights):
            wait([digest])  # those are brought to memory by the modules, which then are of no use to others
        yield digest


def _beginning(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase, quantization: str | None) -> hashlib._Hash:
    digest = hashlib.sha256()
    settings = {key: value for key, value in config.to_dict().items() if key not in _NOT_THE_MODEL}
    if quantization is not None:
        settings["quantization_config"] = quantization  # in words: the object that stands there is new at every load
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    digest.update(_tokenizer_identity(tokenizer).encode())
    return digest


@torch.no_grad()
def _finished(digest: hashlib._Hash, model: torch.nn.Module, weights: Sequence[tuple[str, torch.Tensor]]) -> str:
    for name, tensor in weights:
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        for part in plain_parts(_elements(model, name, tensor)):
            _require_finite(name, part)
            raw = part.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(raw.numpy().data)
    return digest.hexdigest()


def _require_finite(name: str, part: torch.Tensor) -> None:
    """No model that is served has any: what they touch is NaN for everybody, and every comparison with it is false."""
    if not part.is_floating_point() or not part.numel():
        return
    extremes = torch.stack(torch.aminmax(part.detach()))  # NaN if there is one, and no tensor of the size of the weight
    if not extremes.isfinite().all():
        raise ModelRefusedError(
            f"the weight {name} has elements that are not finite ({extremes[0].item():g} to "
            f"{extremes[1].item():g} as {part.dtype}): load it as a wider type, or fetch it again",
            metadata={"tensor": name},
        )


def _elements(model: torch.nn.Module, name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Of a weight, also where accelerate keeps it on disk; one at a time."""
    if not tensor.is_meta:
        return tensor.detach()
    from accelerate.utils import align_module_device

    module, _, own_name = name.rpartition(".")
    owner = model.get_submodule(module)
    with align_module_device(owner):
        weight: torch.Tensor = getattr(owner, own_name)
        return weight.detach()


def _tokenizer_identity(tokenizer: PreTrainedTokenizerBase) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return str(backend.to_str()) if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
