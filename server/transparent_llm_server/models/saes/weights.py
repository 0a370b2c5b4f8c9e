"""The weights of a sparse autoencoder: looked at by their header, then read, each number once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from transparent_llm.errors import InvalidRequestError, ModelRefusedError, TransparentLlmError
from transparent_llm_server.models.loading.folder import require_plain_file, settings_of
from transparent_llm_server.models.loading.memory import require_memory
from transparent_llm_server.models.loading.refusal import listed, printable, refused, refusing
from transparent_llm_server.models.loading.weight_files import StoredTensor, tensors_of
from transparent_llm_server.models.saes.settings import CONFIG, Activation, SaeSettings, settings_from

WEIGHTS = "sae_weights.safetensors"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".npz")
_THRESHOLDS = ("threshold", "log_threshold", "topk_threshold")
_FACTORS = "scaling_factor"
"""Which older versions saved too: ones, where they mean nothing."""


class SaeFolder:
    """A folder with `cfg.json` and `sae_weights.safetensors`, of which no weight was read yet."""

    def __init__(self, folder: Path, name: str) -> None:
        """
        Raises:
            InvalidRequestError: it is not there, or holds no sparse autoencoder.
            ModelRefusedError: a file is no plain one, damaged, or of something that is not known here.
        """
        self._name, self._path = name, folder / WEIGHTS
        self._config = _config(folder, name)
        self.settings = settings_from(self._config, name)
        """How it computes."""

        self._stored = dict(tensors_of(self._path, name))
        self._shapes = _shapes(self.settings, self._stored, name)
        _require(self._stored, self._shapes, name)
        self.is_double = any(each.kind == "F64" for each in self._stored.values())
        """Whether it has weights of double precision."""

    def nbytes(self, dtype: torch.dtype) -> int:
        """Of the weights once they are loaded."""
        return sum(self._stored[key].elements for key in self._shapes) * dtype.itemsize

    def load(self, dtype: torch.dtype, device: torch.device) -> tuple[dict[str, torch.Tensor], str]:
        """The weights by their names, a threshold always as `threshold`; and the digest of all that was read, SHA-256.

        Raises:
            TooLargeError: there is no memory for them.
            ModelRefusedError: numbers that are not finite, or a file that was changed meanwhile.
        """
        from safetensors import safe_open

        require_memory(self.nbytes(dtype), self.nbytes(torch.float64), str(device), self._name)
        digest = hashlib.sha256(json.dumps(self._config, sort_keys=True).encode())
        found = {}
        with refusing(lambda words: f"the weights of {self._name!r} cannot be read: {words}"):
            with safe_open(self._path, "pt") as file:
                for key in sorted(self._stored):
                    read = file.get_tensor(key)
                    self._require(key, read)
                    digest.update(f"{key} {read.dtype} {tuple(read.shape)}\n".encode())
                    digest.update(read.contiguous().reshape(-1).view(torch.uint8).numpy().data)
                    if key in self._shapes:
                        found[key] = read.to(device, dtype).contiguous()
        return _with_threshold(found), digest.hexdigest()

    def _require(self, key: str, read: torch.Tensor) -> None:
        if tuple(read.shape) != self._stored[key].shape:
            raise refused(self._name, f"changed while it was read, at {printable(key)}", WEIGHTS)
        if not bool(read.isfinite().all()):
            raise refused(self._name, f"has elements of {printable(key)} that are not finite", WEIGHTS)
        if key == _FACTORS and not bool((read == 1).all()):
            raise refused(self._name, f"has a {_FACTORS} other than 1: fold it into the weights", WEIGHTS)


def sae_bytes(folder: str, name: str) -> int:
    """What a sparse autoencoder will take of memory in float32, told from its files; 0 where they do not tell."""
    try:
        return SaeFolder(Path(folder), name).nbytes(torch.float32)
    except TransparentLlmError:
        return 0  # loading it will say what is wrong


def _config(folder: Path, name: str) -> Mapping[str, Any]:
    if not folder.is_dir():
        raise InvalidRequestError(f"sparse autoencoder {name!r}: there is no folder {printable(str(folder.name))!r}")
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).exists():
            raise _absent(folder, file, name)
        require_plain_file(folder / file, _roots(folder), name)
    config = settings_of(folder, CONFIG, name)
    assert config is not None  # it exists
    return config


def _roots(folder: Path) -> tuple[Path, ...]:
    """Where links may lead: into the folder, or in the hub's cache to the blobs of its repository."""
    folder = folder.resolve()
    repository = next((each for each in folder.parents if each.name.startswith("models--")), None)
    return (folder,) if repository is None else (repository, repository.parent / "blobs")


def _absent(folder: Path, file: str, name: str) -> InvalidRequestError:
    names = sorted(path.name for path in folder.iterdir())
    pickles = [each for each in names if each.endswith(_PICKLES)]
    held = f"it holds {listed(names)}" if names else "it is empty"
    if file == WEIGHTS and pickles:
        held = (
            f"its weights are pickles or the like ({listed(pickles)}), which can run code when they are read: save "
            "them with SAELens (sae.save_model)"
        )
    return InvalidRequestError(f"sparse autoencoder {name!r} has no {file}: {held}")


def _shapes(
    settings: SaeSettings, stored: Mapping[str, StoredTensor], name: str
) -> dict[str, tuple[tuple[int, ...], ...]]:
    """The tensors that it needs, and the shapes that each can have."""
    d_in, d_sae, d_out = settings.d_in, settings.d_sae, settings.d_out
    needed: dict[str, tuple[tuple[int, ...], ...]] = {"W_enc": ((d_in, d_sae),), "W_dec": ((d_sae, d_out),)}
    biases = ("b_gate", "r_mag", "b_mag") if settings.activation is Activation.GATED else ("b_enc",)
    needed |= {"b_dec": ((d_out,),), **dict.fromkeys(biases, ((d_sae,),))}
    if settings.has_skip:
        needed["W_skip"] = ((d_out, d_in),)
    if settings.activation is Activation.THRESHOLD:
        found = [key for key in _THRESHOLDS if key in stored]
        if len(found) != 1:
            raise refused(
                name,
                f"has {' and '.join(found) or 'no threshold'}; {settings.architecture} needs one of "
                f"{', '.join(_THRESHOLDS)}, over which a feature is active",
                WEIGHTS,
            )
        needed[found[0]] = ((d_sae,), (), (1,))
    return needed


def _require(stored: Mapping[str, StoredTensor], shapes: Mapping[str, tuple[tuple[int, ...], ...]], name: str) -> None:
    missing, more = shapes.keys() - stored.keys(), stored.keys() - shapes.keys() - {_FACTORS}
    if missing or more:
        what = f"lacks {listed(missing)}" if missing else f"has {listed(more)}, of which it is not known what they do"
        raise refused(name, what, WEIGHTS)
    for key, each in stored.items():
        if not each.is_plain:
            raise refused(name, f"has {key} of type {printable(each.kind)}; it must be F64, F32, F16 or BF16", WEIGHTS)
        if key in shapes and each.shape not in shapes[key]:
            raise _misshapen(key, each.shape, shapes[key][0], name)


def _misshapen(key: str, got: tuple[int, ...], wanted: tuple[int, ...], name: str) -> ModelRefusedError:
    return refused(name, f"has {key} of shape {list(got)}; by {CONFIG} it must be {list(wanted)}", WEIGHTS)


def _with_threshold(found: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    for key in _THRESHOLDS:
        if key in found:
            threshold = found.pop(key)
            found["threshold"] = threshold.exp() if key == "log_threshold" else threshold
    return found
