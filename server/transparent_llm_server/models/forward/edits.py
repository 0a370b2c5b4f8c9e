"""Noticing that somebody changed a model after it was loaded: its weights, its modules, what hangs on them.

Torch counts what is written to a tensor, but not through `.data` or numpy; so some elements of every row and column are
looked at too. A single element that is written in that way can stay unseen.
"""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from transparent_llm.errors import InvalidRequestError, NotFoundError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.complex128}
_Held = Mapping[str, "torch.Tensor | None"]
_Fingerprint = tuple[int, int, int]
"""What tells a tensor from another one, or from what it was: identity, writes, place."""


class EditDetector:
    """Tells whether others edited a model in this process. Whoever made values with it asks later whether it is still
    what it was."""

    def __init__(self, hf_model: PreTrainedModel, *, can_watch: bool) -> None:
        self._model = hf_model
        self._lock = threading.Lock()
        self._digest = ""
        self._closely: Sequence[torch.nn.Module] = ()
        self._can_watch = can_watch
        if can_watch:
            self._watch(frozenset())
        self.is_watching = False
        self.generation = 0
        """Grows whenever weights were found changed."""

    def start(self, closely: Sequence[torch.nn.Module]) -> None:
        """Watch from here on, if that can be done, some modules so that they can be looked at by themselves.

        A first forward pass has been made: what it wrote, such as rotary frequencies, is no edit.
        """
        if not self._can_watch:
            return
        self._closely = closely
        self._watch(self._weights.changed())
        self.is_watching = True

    def digest(self, loaded: str) -> str:
        """The digest of the weights as they are now, where `loaded` is that of the model when it was loaded."""
        return self._digest or loaded

    def check(self) -> int:
        """Look at all modules and weights: the generation of the weights as they are now.

        Raises:
            InvalidRequestError: a change that cannot be followed; the message says what is to be done.
        """
        if not self.is_watching:
            return self.generation
        with self._lock:
            if list(map(id, self._model.modules())) != self._modules:
                raise _cannot_follow("modules were added to it or removed")
            if not self._weights.are_same or not self._weights.sample_is_same():
                self._renew()
            return self.generation

    def require_no_hooks(self) -> None:
        """Look at what would change a forward pass that is about to begin.

        Raises:
            InvalidRequestError: somebody put hooks on the model, or took them off, or set another attention.
        """
        if self.is_watching and _hooks(self._model) != self._hooks:
            raise _cannot_follow("hooks were added to its modules or removed")
        attention = self._model.config._attn_implementation
        if attention != "eager":
            raise _cannot_follow(f"its attention was set to {attention}, which exposes no patterns")

    def require_unchanged(self, generation: int, *modules: torch.nn.Module) -> None:
        """Look whether weights are those of a generation: at writes that torch counts, and closer at some modules.

        Raises:
            NotFoundError: MODEL_CHANGED, as they are not.
        """
        if not self.is_watching:
            return
        weights = self._weights
        if generation != self.generation or not weights.are_same or not all(map(weights.sample_is_same, modules)):
            raise NotFoundError(
                "the model's weights were changed since this was run: run it again to read its values now",
                reason="MODEL_CHANGED",
            )

    def _watch(self, written: frozenset[tuple[int, str]]) -> None:
        self._modules, self._hooks = list(map(id, self._model.modules())), _hooks(self._model)
        self._split = _split_ones(self._model)
        self._weights = _Snapshot(self._model, written, [*self._closely, *self._split])

    def _renew(self) -> None:
        before, now = self._weights, _Snapshot(self._model, self._weights.written, [*self._closely, *self._split])
        if now.kinds != before.kinds:
            raise _cannot_follow("it was cast, moved or reshaped")
        if not before.are_same_of(self._split):
            raise _cannot_follow(
                "a weight was written to, but the model computes with copies of its parts, made at load"
            )
        self._weights = now
        self._digest = hashlib.sha256(uuid.uuid4().bytes).hexdigest()  # hashing all weights would take seconds
        self.generation += 1


class _Snapshot:
    """The parameters and buffers of a model, and what they were when this was made."""

    def __init__(
        self, model: torch.nn.Module, written: frozenset[tuple[int, str]], closely: Iterable[torch.nn.Module]
    ) -> None:
        self.written = written
        """(id of a dictionary of tensors, name) of those that forward passes write."""

        every = [held for module in model.modules() for held in (module._parameters, module._buffers) if held]
        self._watched: list[tuple[_Held, str]] = [
            (held, name)
            for held in every
            for name, tensor in held.items()
            if tensor is not None and (id(held), name) not in written
        ]
        tensors = [tensor for held, name in self._watched if (tensor := held[name]) is not None]
        self.kinds = [(tensor.dtype, tensor.device, tensor.shape) for tensor in tensors]
        self._fingerprints = self._now()
        self._of_all = _Sample(tensors)
        self._of_module = {id(module): _Sample(module.parameters()) for module in closely}

    @property
    def are_same(self) -> bool:
        """Whether nothing was written since, as far as torch counts it, nor put in the place of one."""
        return self._now() == self._fingerprints

    def changed(self) -> frozenset[tuple[int, str]]:
        """The weights, as (id of the parameters' dictionary, name), that are written to now or were found changed."""
        found = zip(self._watched, self._fingerprints, self._now(), strict=True)
        return self.written | {(id(held), name) for (held, name), was, now in found if was != now}

    def are_same_of(self, modules: Iterable[torch.nn.Module]) -> bool:
        """Whether nothing was written to the weights of some modules."""
        of_modules = {id(module._parameters) for module in modules}
        found = zip(self._watched, self._fingerprints, self._now(), strict=True)
        written = any(was != now for (held, _), was, now in found if id(held) in of_modules)
        return not written and all(map(self.sample_is_same, modules))

    def sample_is_same(self, module: torch.nn.Module | None = None) -> bool:
        """Whether what is looked at of all weights, or of those in a module that is watched closely, is what it was."""
        sample = self._of_all if module is None else self._of_module[id(module)]
        return sample.are_same

    def _now(self) -> list[_Fingerprint | None]:
        return [_fingerprint(held.get(name)) for held, name in self._watched]


class _Sample:
    """Some elements of some tensors, and what they were when this was first asked."""

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        self._kinds: dict[tuple[torch.dtype, torch.device], list[torch.Tensor]] = {}
        for tensor in tensors:
            for view in _views(tensor):
                self._kinds.setdefault((view.dtype, view.device), []).append(view)
        self._were = self._are()

    @property
    def are_same(self) -> bool:
        """Whether they are what they were."""
        return all(map(torch.equal, self._are(), self._were))

    def _are(self) -> list[torch.Tensor]:
        return [torch.cat(views) for views in self._kinds.values()]


def _fingerprint(tensor: torch.Tensor | None) -> _Fingerprint | None:
    return None if tensor is None else (id(tensor), tensor._version, tensor.data_ptr())


def _views(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Views of some elements, as integers, so that NaN equals itself.

    Of matrices they are those along a diagonal that goes on at the other side: of nearly every row and column.
    """
    bits = tensor.detach().view(_INTEGERS[tensor.element_size()])
    if bits.ndim < 2 or not bits.numel():
        return [bits.reshape(-1)]
    if bits.is_contiguous():
        return [bits.flatten()[:: min(bits.shape[-2:]) + 1]]
    matrix = bits.flatten(0, -2)
    rows, columns = matrix.shape
    offsets = range(0, -rows, -columns) if rows > columns else range(0, columns, rows)
    return [matrix.diagonal(offset) for offset in offsets]


def _hooks(model: torch.nn.Module) -> list[tuple[int, ...]]:
    return [(*module._forward_hooks, *module._forward_pre_hooks) for module in model.modules()]


def _split_ones(model: torch.nn.Module) -> list[torch.nn.Module]:
    """Modules whose weights the bridge cut into copies, one for queries, keys and values each, and uses no more."""
    found: list[torch.nn.Module] = []
    for module in model.modules():
        parts = [part for name in ("q", "k", "v") if isinstance(part := getattr(module, name, None), torch.nn.Module)]
        whole = getattr(module, "qkv", None)
        if isinstance(whole, torch.nn.Module) and len(parts) == 3:
            used = {_place(parameter) for part in parts for parameter in part.parameters()}
            if used.isdisjoint(map(_place, whole.parameters())):
                found += [part for part in whole.modules() if part._parameters]
    return found


def _place(tensor: torch.Tensor) -> int:
    place: int = tensor.untyped_storage()._cdata
    return place


def count_writes(hf_model: torch.nn.Module) -> None:
    """Put ordinary tensors in the place of those made in inference mode, to which torch counts no writes."""
    made: dict[int, Any] = {}  # one for several modules, where weights are tied
    for module in hf_model.modules():
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if tensor is not None and tensor.is_inference():
                    if id(tensor) not in made:
                        plain, is_parameter = tensor.clone(), held is module._parameters
                        made[id(tensor)] = torch.nn.Parameter(plain, requires_grad=False) if is_parameter else plain
                    held[name] = made[id(tensor)]


def _cannot_follow(what: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"the model was changed after it was loaded, so its values could be wrong: {what}. Undo that, or load the "
        "model again"
    )
