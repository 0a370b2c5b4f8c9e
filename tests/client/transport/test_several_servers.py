"""Targets that name several servers; who gets which run is in tests/cluster."""

from __future__ import annotations

import grpc
import pytest

from support.servers.servers import running
from transparent_llm import RemoteTransparentLlm
from transparent_llm.client.config import ClientConfig
from transparent_llm.errors import InvalidRequestError


@pytest.mark.parametrize(
    ("target", "several"),
    [
        ("127.0.0.1:50051", False),
        ("gpu-box:50051", False),
        ("unix:llm.sock", False),
        ("ipv4:10.0.0.1:50051", False),
        ("ipv4:10.0.0.1:50051,10.0.0.2:50051", True),
        ("ipv6:[::1]:50051,[::2]:50051", True),
        ("dns:///replicas:50051", True),
        ("dns://10.0.0.53/replicas:50051", True),
    ],
)
def test_what_names_several(target: str, several: bool) -> None:
    assert ClientConfig(target).names_several is several


def test_an_old_grpc_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grpc, "__version__", "1.62.3")
    target = "ipv4:127.0.0.1:1,127.0.0.1:2"
    with RemoteTransparentLlm(target) as llm, pytest.raises(InvalidRequestError) as refused:
        llm.model_info()
    assert str(refused.value) == (
        f"{target} names several servers, which needs grpcio 1.70 or newer; this is 1.62.3: install a newer one, name "
        "one server, or put a proxy before them"
    )


def test_one_that_is_not_there_is_passed_over() -> None:
    with running(listen="127.0.0.1:0") as server:
        target = f"ipv4:127.0.0.1:9,{server.address}"
        with RemoteTransparentLlm(target, timeout_s=30) as llm:
            for row in range(8):
                llm.run_tokens([[1, 2, 3 + row]])
                assert llm.residual_in(1).shape == (1, 3, 64)
