"""Where and how a model is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.models.placement.device import resolve_device
from transparent_llm_server.models.placement.device_map import device_map_of, max_memory_of
from transparent_llm_server.models.placement.layout import DeviceLayout
from transparent_llm_server.models.placement.quantization import quantization_of, refuse_if_quantized, require_quantized

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Placement:
    """As it was written; see `TransformerLensTransparentLlm` for the words.

    Raises:
        InvalidRequestError: words that mean nothing, or do not go together.
    """

    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    device_map: str | None = None
    max_memory: str | None = None
    offload_dir: Path | None = None
    quantization: str | None = None

    def __post_init__(self) -> None:
        if self.device_map is None:
            resolve_device(self.device)
            for name in ("max_memory", "offload_dir"):
                if getattr(self, name) is not None:
                    raise InvalidRequestError(f"{name} requires device_map; give one, for example auto")
        elif self.quantization is not None:
            raise InvalidRequestError(
                "quantization together with device_map has not been shown to be correct; leave one of them out"
            )
        self.load_options()

    def require_mergeable(self) -> None:
        """Refuse to merge an adapter where weights are not what they will be multiplied as.

        Raises:
            InvalidRequestError: with the setting.
        """
        for name in ("quantization", "device_map"):
            if getattr(self, name) is not None:
                raise InvalidRequestError(
                    f"adapter together with {name} has not been shown to be correct; leave one of them out, or merge "
                    "the adapter with peft (merge_and_unload) and serve that"
                )

    def load_options(self) -> dict[str, object]:
        """What `from_pretrained` is told of it."""
        if self.quantization is not None:
            config = quantization_of(self.quantization).config()
            return {"quantization_config": config, "device_map": {"": resolve_device(self.device)}}
        if self.device_map is None:
            return {}
        told: dict[str, object] = {"device_map": device_map_of(self.device_map)}
        if self.max_memory is not None:
            told["max_memory"] = max_memory_of(self.max_memory)
        if self.offload_dir is not None:
            told["offload_folder"] = str(self.offload_dir)
        return told

    def place(self, hf_model: PreTrainedModel) -> PreTrainedModel:
        """The model on its device in its dtype; one that accelerate has placed stays where it is."""
        if self.quantization is not None:
            require_quantized(hf_model, self.quantization)
            return hf_model
        refuse_if_quantized(hf_model)
        if self.device_map is not None or DeviceLayout.of(hf_model) is not None:
            return hf_model
        return _cast(hf_model.to(resolve_device(self.device)), self.dtype)

    def layout(self, hf_model: PreTrainedModel) -> DeviceLayout:
        """Where a model that is at home is."""
        if self.device_map is not None:  # accelerate leaves none where all of it is on one device
            return DeviceLayout(getattr(hf_model, "hf_device_map", None) or {"": str(hf_model.device)})
        return DeviceLayout.of(hf_model) or DeviceLayout({"": str(resolve_device(self.device))})


def _cast(hf_model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Cast weights as `from_pretrained` does: buffers, such as rotary frequencies, keep their precision."""
    keep = getattr(hf_model, "_keep_in_fp32_modules", None) or ()
    strict = getattr(hf_model, "_keep_in_fp32_modules_strict", None) or ()
    for name, parameter in hf_model.named_parameters():
        if parameter.is_floating_point() and not any(part in name.split(".") for part in (*keep, *strict)):
            parameter.data = parameter.data.to(dtype)
    return hf_model
