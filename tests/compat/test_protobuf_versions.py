"""The client works beside whichever protobuf a notebook already has: 5, 6 or 7.

Each version lives in a throw-away environment. What is not under test (torch, jaxtyping, tqdm, this project) is found
behind it, in the environment that runs the tests.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pytest

from compat import client_script
from compat.environment import Environment, make_environment
from support.models.families import save
from transparent_llm.testing import serve_in_process
from transparent_llm.wire import _gen
from transparent_llm_server import TransformerLensTransparentLlm

PROTOBUF_VERSIONS = ["5.29.6", "6.33.6", "7.36.2"]

STUBS_SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])

import google.protobuf
from _gen import errors_pb2, method_pb2, model_pb2, service_pb2, tensor_pb2

assert google.protobuf.__version__ == sys.argv[2], google.protobuf.__version__
assert "torch" not in sys.modules and "transparent_llm" not in sys.modules

options = tensor_pb2.TensorOptions(slices=[tensor_pb2.AxisSlice(axis="pos", stop=-1)], dtype=tensor_pb2.DTYPE_BF16)
sent = service_pb2.AttentionOutputRequest(run_id="r", layer=2**31 - 1, head=0, options=options)
received = service_pb2.AttentionOutputRequest.FromString(sent.SerializeToString())
assert received == sent
assert received.HasField("head") and not received.options.slices[0].HasField("start")
assert not service_pb2.AttentionOutputRequest.FromString(b"").HasField("head")

rpcs = service_pb2.DESCRIPTOR.services_by_name["TransparentLlmService"].methods_by_name
spec = rpcs["DecomposedAttn"].GetOptions().Extensions[method_pb2.method]
assert spec.dims == "target source head d_model"
assert [part.name for part in spec.parts] == ["pattern", "value_out", "gain"]
assert not rpcs["Fetch"].GetOptions().HasExtension(method_pb2.method)
head = service_pb2.AttentionOutputRequest.DESCRIPTOR.fields_by_name["head"].GetOptions().Extensions[method_pb2.index]
assert head.axis == "head" and head.optional
"""


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Environment]:
    make = partial(make_environment, tmp_path_factory.mktemp("environments"), grpcio=version("grpcio"))
    with ThreadPoolExecutor() as pool:
        return dict(zip(PROTOBUF_VERSIONS, pool.map(make, PROTOBUF_VERSIONS), strict=True))


@pytest.fixture(params=PROTOBUF_VERSIONS)
def environment(request: pytest.FixtureRequest, environments: dict[str, Environment]) -> Environment:
    return environments[request.param]


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> TransformerLensTransparentLlm:
    return TransformerLensTransparentLlm(str(save("gpt2", tmp_path_factory.mktemp("model") / "gpt2")))


@pytest.fixture(scope="module")
def address(local: TransformerLensTransparentLlm) -> Iterator[str]:
    with serve_in_process(local.copy()) as llm:
        yield llm.server.address


def test_generated_stubs_need_nothing_but_protobuf_and_grpc(environment: Environment, tmp_path: Path) -> None:
    shutil.copytree(Path(_gen.__file__).parent, tmp_path / "_gen", ignore=shutil.ignore_patterns("__pycache__"))
    environment.run("-c", STUBS_SCRIPT, tmp_path, environment.protobuf)


def test_client_gives_exactly_the_values_of_the_local_model(
    environment: Environment, address: str, local: TransformerLensTransparentLlm
) -> None:
    seen = json.loads(environment.run(client_script.__file__, address, environment.protobuf))
    assert seen == {"is_serving": True, **client_script.observe(local.copy())}


def test_what_is_compared_depends_on_the_model(local: TransformerLensTransparentLlm) -> None:
    """The comparison above could not fail if `observe` looked at nothing."""
    seen = client_script.observe(local.copy())
    assert seen["refusal"]["metadata"] == {"axis": "layer", "size": "2", "got": "99"}
    assert "".join(seen["tokens_to_strings"]).endswith(client_script.SENTENCES[0])
    tensors = [seen[name] for name in ("tokens", "residual_out", "attention_matrix", "unembed")]
    assert len(set(tensors)) == len(tensors)
