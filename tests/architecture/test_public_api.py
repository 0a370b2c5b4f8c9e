"""The public surface, pinned: who changes a line here changes other people's programs."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import torch

import transparent_llm
import transparent_llm_server
from architecture.test_agreement import RPCS_WITHOUT_A_METHOD
from transparent_llm import RemoteTransparentLlm, TransparentLlm, connect, errors
from transparent_llm.client.config import ClientConfig
from transparent_llm.integrations import transformer_lens
from transparent_llm_server import TransformerLensTransparentLlm

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
Documented = ast.Module | Definition
PACKAGES = [Path(package.__path__[0]) for package in (transparent_llm, transparent_llm_server)]

ABSTRACT_METHODS = {
    "model_info": "(self) -> ModelInfo",
    "run": "(self, sentences: list[str]) -> None",
    "batch_size": "(self) -> int",
    "tokens": "(self) -> Int[torch.Tensor, 'batch pos']",
    "tokens_to_strings": "(self, tokens: Int[torch.Tensor, 'pos']) -> list[str]",
    "logits": "(self) -> Float[torch.Tensor, 'batch pos d_vocab']",
    "unembed": "(self, t: Float[torch.Tensor, 'd_model'], normalize: bool) -> Float[torch.Tensor, 'vocab']",
    "residual_in": "(self, layer: int) -> Float[torch.Tensor, 'batch pos d_model']",
    "residual_after_attn": "(self, layer: int) -> Float[torch.Tensor, 'batch pos d_model']",
    "residual_out": "(self, layer: int) -> Float[torch.Tensor, 'batch pos d_model']",
    "ffn_out": "(self, layer: int) -> Float[torch.Tensor, 'batch pos d_model']",
    "decomposed_ffn_out": ("(self, batch_i: int, layer: int, pos: int) -> Float[torch.Tensor, 'hidden d_model']"),
    "neuron_activations": "(self, batch_i: int, layer: int, pos: int) -> Float[torch.Tensor, 'd_ffn']",
    "neuron_output": "(self, layer: int, neuron: int) -> Float[torch.Tensor, 'd_model']",
    "attention_matrix": ("(self, batch_i: int, layer: int, head: int) -> Float[torch.Tensor, 'query_pos key_pos']"),
    "attention_output": (
        "(self, batch_i: int, layer: int, pos: int, head: int | None = None) -> Float[torch.Tensor, 'd_model']"
    ),
    "decomposed_attn": "(self, batch_i: int, layer: int) -> Float[torch.Tensor, 'target source head d_model']",
}
OTHER_METHODS = {
    "attention_output_per_head": (
        "(self, batch_i: int, layer: int, pos: int, head: int) -> Float[torch.Tensor, 'd_model']"
    ),
    "copy": "(self: _Self) -> _Self",
    "last": "(self) -> Int[torch.Tensor, 'batch']",
    "to_tokens": "(self, text: str, *, add_bos: bool | None = None) -> Int[torch.Tensor, 'pos']",
    "to_str_tokens": "(self, text: str, *, add_bos: bool | None = None) -> list[str]",
    "to_single_token": "(self, text: str) -> int",
    "describe_run": "(self) -> Table",
    "run_tokens": "(self, token_ids: list[list[int]]) -> None",
    "mask": "(self) -> Bool[torch.Tensor, 'batch pos']",
}
CONTRACT = {**ABSTRACT_METHODS, **OTHER_METHODS}

REMOTE_INIT = (
    "(self, target: str | None = None, *, model: str | None = None, timeout_s: float = 300.0, "
    "token: str | None = None, tls_ca: str | None = None, "
    "tls_cert: str | None = None, tls_key: str | None = None, proxy: str | None = None, "
    "device: str | torch.device = 'cpu', "
    "progress: bool | Report | None = None, rerun: bool = True, cache_bytes: int = 536870912, "
    "read_ahead_bytes: int = 8388608, weights_bytes: int = 1073741824, "
    "weights_dir: str | os.PathLike[str] | None = None, weights_dir_bytes: int = 17179869184, "
    "shared_memory: bool = True, "
    "max_bytes: int | None = None, max_message_bytes: int = 16777216, keepalive_s: float = 20.0, "
    "keepalive_timeout_s: float = 20.0, reconnect_s: float = 30.0, padding: Padding = 'keep') -> None"
)
CONNECT = REMOTE_INIT.replace("self, ", "").replace("-> None", "-> RemoteTransparentLlm")
NOT_OF_THE_CONNECTION = {"model", "device"}
"""What a client takes beside its settings."""

GIVEN: dict[str, Any] = {
    "target": "127.0.0.1:1",
    "token": "a-token",
    "tls_ca": "system",
    "tls_cert": "certificate.pem",
    "tls_key": "key.pem",
    "proxy": "none",
    "timeout_s": 1.0,
    "progress": True,
    "rerun": False,
    "cache_bytes": 1,
    "read_ahead_bytes": 2,
    "weights_bytes": 3,
    "weights_dir": Path("weights"),
    "weights_dir_bytes": 4,
    "max_bytes": 5,
    "max_message_bytes": 6,
    "keepalive_s": 2.0,
    "keepalive_timeout_s": 3.0,
    "reconnect_s": 4.0,
    "padding": "nan",
    "shared_memory": False,
}

EXPORTED = [
    "Limits",
    "ModelDescription",
    "ModelInfo",
    "ModelState",
    "PaddingWarning",
    "ParityCheck",
    "PlannedRead",
    "ReadSpec",
    "RemoteTransparentLlm",
    "Report",
    "RunWarning",
    "ServerInfo",
    "TransparentLlm",
    "__version__",
    "connect",
    "errors",
]

ERRORS = {
    "TransparentLlmError": (Exception,),
    "NotRunError": (errors.TransparentLlmError, RuntimeError),
    "InvalidRequestError": (errors.TransparentLlmError, ValueError),
    "TooLargeError": (errors.InvalidRequestError,),
    "IndexOutOfRangeError": (errors.TransparentLlmError, IndexError),
    "NotFoundError": (errors.TransparentLlmError, LookupError),
    "BusyError": (errors.TransparentLlmError, RuntimeError),
    "CapacityError": (errors.BusyError, MemoryError),
    "NotSupportedError": (errors.TransparentLlmError, NotImplementedError),
    "UnavailableError": (errors.TransparentLlmError, ConnectionError),
    "DeadlineError": (errors.TransparentLlmError, TimeoutError),
    "CancelledError": (errors.TransparentLlmError,),
    "AuthError": (errors.TransparentLlmError, PermissionError),
    "ModelRefusedError": (errors.TransparentLlmError, ValueError),
    "InternalError": (errors.TransparentLlmError, RuntimeError),
}


class AsWritten(str):
    """An annotation that shows without the quotes of the string that it is kept as."""

    def __repr__(self) -> str:
        return str(self)


def signature(function: Callable[..., Any]) -> str:
    """The signature as the source has it."""
    kept = inspect.signature(function)
    parameters = [p.replace(annotation=as_written(p.annotation)) for p in kept.parameters.values()]
    return str(kept.replace(parameters=parameters, return_annotation=as_written(kept.return_annotation)))


def as_written(annotation: Any) -> Any:
    return AsWritten(annotation) if isinstance(annotation, str) else annotation


def defined_errors() -> dict[str, tuple[type, ...]]:
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    return {cls.__name__: cls.__bases__ for cls in classes}


def drawn_errors() -> dict[str, tuple[str, ...]]:
    """The bases of each class in the tree of the module docstring: the line that it hangs from, then `(builtin)`."""
    assert errors.__doc__ is not None
    bases: dict[str, tuple[str, ...]] = {}
    branch: list[str] = []
    for line in re.findall(r"^    (?=Transparent|[|+])(.+)$", errors.__doc__, flags=re.MULTILINE):
        drawn = re.fullmatch(r"((?:\|   )*(?:\+-- )?)(\w+)(?: +\((\w+)\))?(?:  .*)?", line)
        assert drawn is not None, f"cannot read {line!r}"
        depth, name, builtin = len(drawn[1]) // 4, drawn[2], drawn[3]
        branch = [*branch[:depth], name]
        bases[name] = (branch[depth - 1] if depth else "Exception", *([builtin] if builtin else []))
    return bases


def undocumented(node: Documented, name: str) -> Iterator[str]:
    """Public modules, classes and functions below a node that have no docstring."""
    if ast.get_docstring(node) is None:
        yield name
    if isinstance(node, (ast.Module, ast.ClassDef)):
        for child in node.body:
            if isinstance(child, Definition) and not child.name.startswith("_"):
                yield from undocumented(child, f"{name}.{child.name}")


def documented_elsewhere() -> set[str]:
    """Methods that the contract, and RPCs that service.proto documents."""
    servicer = "transparent_llm_server.rpc.servicer.TransparentLlmServicer"
    rpcs = {f"{servicer}.{''.join(word.capitalize() for word in name.split('_'))}" for name in ABSTRACT_METHODS}
    implementations = [
        "transparent_llm.client.remote.RemoteTransparentLlm",
        "transparent_llm.client.running.RemoteRunning",
        "transparent_llm_server.models.transformer_lens.TransformerLensTransparentLlm",
        "transparent_llm_server.models.running.Running",
    ]
    methods = {f"{implementation}.{name}" for implementation in implementations for name in CONTRACT}
    return methods | rpcs | {f"{servicer}.{rpc}" for rpc in RPCS_WITHOUT_A_METHOD}


def test_exported_names() -> None:
    assert sorted(transparent_llm.__all__) == EXPORTED
    assert all(hasattr(transparent_llm, name) for name in EXPORTED)
    assert transparent_llm_server.__all__ == ["TransformerLensTransparentLlm"]


def test_abstract_methods() -> None:
    assert len(ABSTRACT_METHODS) == 17
    assert TransparentLlm.__abstractmethods__ == ABSTRACT_METHODS.keys()


def test_contract_has_no_other_public_methods() -> None:
    assert {name for name in vars(TransparentLlm) if not name.startswith("_")} == CONTRACT.keys()


@pytest.mark.parametrize("name", CONTRACT)
def test_signatures_of_the_contract(name: str) -> None:
    assert signature(getattr(TransparentLlm, name)) == CONTRACT[name]


def test_signatures_of_the_client() -> None:
    assert signature(RemoteTransparentLlm.__init__) == REMOTE_INIT
    assert signature(connect) == CONNECT


def test_every_setting_of_a_connection_can_be_given() -> None:
    parameters = inspect.signature(RemoteTransparentLlm).parameters
    assert inspect.signature(connect).parameters == parameters
    defaults = {field.name: field.default for field in dataclasses.fields(ClientConfig)}
    assert parameters.keys() - NOT_OF_THE_CONNECTION == defaults.keys() == GIVEN.keys()
    assert [name for name in GIVEN if GIVEN[name] == defaults[name]] == [], "a default proves nothing"
    with RemoteTransparentLlm(**GIVEN) as llm:
        assert vars(llm._config) == GIVEN


def test_arguments_of_the_local_model() -> None:
    parameters = inspect.signature(TransformerLensTransparentLlm).parameters.values()
    assert [(p.name, p.default) for p in parameters] == [
        ("model_name", inspect.Parameter.empty),
        ("hf_model", None),
        ("tokenizer", None),
        ("device", "cpu"),
        ("dtype", torch.float32),
        ("revision", None),
        ("device_map", None),
        ("max_memory", None),
        ("offload_dir", None),
        ("quantization", None),
        ("adapter", None),
        ("padding", "keep"),
        ("saes", None),
    ]
    assert {p.kind for p in parameters} == {inspect.Parameter.POSITIONAL_OR_KEYWORD}


def test_integration_of_transformer_lens() -> None:
    assert transformer_lens.__all__ == ["TransparentLlmBridge", "TransparentLlmDriver", "boot_transparent_llm"]
    boot = "(llm: TransparentLlm, model_name: str | os.PathLike[str]) -> TransparentLlmBridge"
    assert signature(transformer_lens.boot_transparent_llm) == boot


def test_errors_and_their_bases() -> None:
    assert defined_errors() == ERRORS


def test_tree_drawn_in_errors_is_the_tree_of_classes() -> None:
    defined = {name: tuple(base.__name__ for base in bases) for name, bases in defined_errors().items()}
    assert drawn_errors() == defined


def test_console_script() -> None:
    (script,) = entry_points(group="console_scripts", name="transparent-llm")
    assert script.value == "transparent_llm.cli:main"
    assert callable(script.load())


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_package_is_typed(package: Path) -> None:
    assert (package / "py.typed").is_file()


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_everything_public_has_a_docstring(package: Path) -> None:
    missing: set[str] = set()
    for path in package.rglob("*.py"):
        if "_gen" not in path.parts:
            module = ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")
            missing.update(undocumented(ast.parse(path.read_text(encoding="utf-8")), module))
    assert sorted(missing - documented_elsewhere()) == []
