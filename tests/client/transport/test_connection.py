"""How a client finds, trusts and leaves its server."""

from __future__ import annotations

import time
import warnings
from pathlib import Path

import pytest
import torch

from support.servers.servers import Watcher, running, served
from transparent_llm import RemoteTransparentLlm, connect, errors
from transparent_llm.client.config import ClientConfig


def test_nothing_is_sent_before_the_first_call() -> None:
    llm = RemoteTransparentLlm("127.0.0.1:1")
    assert repr(llm) == "<RemoteTransparentLlm('127.0.0.1:1'): no run yet>"
    llm.close()


def test_repr_tells_target_model_and_run() -> None:
    with running() as server, RemoteTransparentLlm(server.address, model="tiny") as llm:
        llm.run_tokens([[1, 2, 3], [4]])
        assert repr(llm) == (
            f"<RemoteTransparentLlm('{server.address}', model='tiny'): run of 2 sentences, 3 positions>"
        )


def test_an_unreachable_server_is_named_within_the_deadline() -> None:
    started = time.monotonic()
    with RemoteTransparentLlm("127.0.0.1:1", timeout_s=20) as llm, pytest.raises(errors.UnavailableError) as caught:
        llm.model_info()
    assert time.monotonic() - started < 20
    assert str(caught.value).startswith("no server answers at 127.0.0.1:1 (")
    assert isinstance(caught.value, ConnectionError)


def test_connect_fails_at_once_where_no_server_is() -> None:
    with pytest.raises(errors.UnavailableError, match=r"no server answers at 127\.0\.0\.1:1"):
        connect("127.0.0.1:1", timeout_s=60)


def test_connect_says_which_models_there_are() -> None:
    with running() as server:
        with pytest.raises(errors.NotFoundError) as caught:
            connect(server.address, model="gpt5")
        assert str(caught.value) == "there is no model 'gpt5'; the models are: tiny"
        assert caught.value.reason == "MODEL_NOT_FOUND"
        with connect(server.address, model="tiny") as llm:
            assert llm.model_info().name == "tiny"


@pytest.mark.parametrize(
    ("theirs", "text"), [("2.0", "speaks API 2.0, this client 1.2"), ("0.9", "speaks API 0.9, this client 1.2")]
)
def test_another_api_version_is_warned_about(theirs: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transparent_llm_server.rpc.server_info.API_VERSION", theirs)
    with running() as server, pytest.warns(UserWarning, match=text) as caught:
        connect(server.address).close()
    assert caught[0].filename == __file__  # the warning points at the caller's line


def test_the_same_api_version_is_not() -> None:
    with running() as server, warnings.catch_warnings():
        warnings.simplefilter("error")
        connect(server.address).close()


def test_a_closed_client_says_so() -> None:
    with running() as server:
        llm = connect(server.address)
        llm.close()
        with pytest.raises(errors.InvalidRequestError, match="this client is closed; make a new one"):
            llm.model_info()


def test_configuration_comes_from_arguments_then_environment_then_defaults() -> None:
    environment = {
        "TRANSPARENT_LLM_ADDRESS": "box:1",
        "TRANSPARENT_LLM_TOKEN": "secret",
        "TRANSPARENT_LLM_TLS_CA": "ca.pem",
        "TRANSPARENT_LLM_TLS_CERT": "me.pem",
        "TRANSPARENT_LLM_TLS_KEY": "me.key",
    }

    def chosen(*arguments: str | None, environ: dict[str, str]) -> tuple[str | None, ...]:
        config = ClientConfig.from_env(*arguments, environ=environ)  # type: ignore[arg-type]
        return config.target, config.token, config.tls_ca, config.tls_cert, config.tls_key

    from_environment = ("box:1", "secret", "ca.pem", "me.pem", "me.key")
    assert chosen(None, None, None, None, None, environ=environment) == from_environment
    arguments = ("other:2", "mine", "system", "you.pem", "you.key")
    assert chosen(*arguments, environ=environment) == arguments
    assert chosen("other:2", "", "", "", "", environ=environment) == ("other:2", None, None, None, None)
    assert chosen(None, None, None, environ={}) == ("127.0.0.1:50051", None, None, None, None)


@pytest.mark.parametrize(
    ("written", "called"),
    [
        ("gpu-box", "gpu-box:50051"),
        ("10.0.0.7", "10.0.0.7:50051"),
        ("[::1]", "[::1]:50051"),
        ("gpu-box:443", "gpu-box:443"),
        ("unix:/run/llm.sock", "unix:/run/llm.sock"),
        ("dns:///models:50051", "dns:///models:50051"),
        ("ipv4:10.0.0.1:1,10.0.0.2:1", "ipv4:10.0.0.1:1,10.0.0.2:1"),
    ],
)
def test_a_host_without_a_port_is_called_at_the_usual_one(written: str, called: str) -> None:
    assert ClientConfig.from_env(written, None, None, environ={}).target == called
    assert ClientConfig.from_env(None, None, None, environ={"TRANSPARENT_LLM_ADDRESS": written}).target == called


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("http://gpu-box", "write 'gpu-box:50051'"),
        ("http://gpu-box:8080/v1", "write 'gpu-box:8080'"),
        ("https://gpu-box:443", "write 'gpu-box:443', and set tls_ca, to \"system\" perhaps, for TLS"),
    ],
)
def test_a_url_is_told_what_to_write_instead(url: str, advice: str) -> None:
    with pytest.raises(errors.InvalidRequestError) as caught:
        RemoteTransparentLlm(url)
    assert str(caught.value) == f"{url!r} is a URL, not a server address: {advice}"


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = Watcher()
    with running(watcher) as server:
        monkeypatch.setenv("TRANSPARENT_LLM_ADDRESS", server.address)
        monkeypatch.setenv("TRANSPARENT_LLM_TOKEN", "from-environment")
        with RemoteTransparentLlm() as llm:
            llm.model_info()
    assert watcher.calls[-1][1]["authorization"] == "Bearer from-environment"


def test_the_token_goes_with_every_call_and_stays_out_of_repr() -> None:
    watcher = Watcher()
    with running(watcher) as server, RemoteTransparentLlm(server.address, token="s3cret") as llm:
        llm.run_tokens([[1, 2]])
        llm.residual_in(0)
        llm.is_serving()
        assert "s3cret" not in repr(llm)
        assert "s3cret" not in repr(llm._config)
    assert watcher.names == ["Run", "ResidualIn", "Check"]
    assert all(metadata["authorization"] == "Bearer s3cret" for _, metadata in watcher.calls)


@pytest.mark.parametrize("token", ["s3cret\n", "s3\x00cret", "s3crét"], ids=ascii)
def test_a_token_that_cannot_be_sent_is_told_without_quoting_it(token: str) -> None:
    with pytest.raises(errors.InvalidRequestError, match="perhaps a trailing line break") as caught:
        RemoteTransparentLlm(token=token)
    assert "s3" not in str(caught.value)


def test_a_run_and_its_reads_carry_the_same_routing_key() -> None:
    watcher = Watcher()
    with served(watcher) as llm:
        llm.run_tokens([[1, 2]])
        llm.residual_in(0)
        llm.logits()
        llm.run_tokens([[3, 4]])
    keys = [metadata["x-transparent-llm-run-key"] for _, metadata in watcher.calls]
    assert len(set(keys[:3])) == 1
    assert keys[3] != keys[0]


def test_a_ca_file_that_cannot_be_read(tmp_path: Path) -> None:
    with RemoteTransparentLlm("localhost:1", tls_ca=str(tmp_path / "none.pem")) as llm:
        with pytest.raises(errors.InvalidRequestError, match=r"cannot read the CA certificates: .*none.pem"):
            llm.model_info()


def test_results_land_on_the_device() -> None:
    with running() as server, RemoteTransparentLlm(server.address, device="meta") as llm:
        llm.run_tokens([[1, 2]])
        for result in (
            llm.tokens(),
            llm.mask(),
            llm.logits(),
            llm.neuron_output(0, 0),
            llm.unembed(torch.ones(64), True),
        ):
            assert result.device.type == "meta"


@pytest.mark.parametrize(
    "target",
    [
        "127.0.0.1:99999",
        "localhost:65536",
        "localhost:0",
        "localhost:-1",
        "localhost:",
        "localhost:0x50",
        "[::1]:99999",
        "dns:///a.example:99999",
        "ipv4:127.0.0.1:50051,127.0.0.1:99999",
    ],
)
def test_a_port_that_is_none_is_an_error_and_no_other_port(target: str) -> None:
    with pytest.raises(errors.InvalidRequestError, match=r"cannot call '.*': its port is '.*'; write 1 to 65535"):
        RemoteTransparentLlm(target)


@pytest.mark.parametrize(
    "target", ["a.example", "a.example:https", "[::1]:65535", "::1", "unix:/a:99999", "xds:///a", "dns:///a.example"]
)
def test_other_targets_are_grpcs_matter(target: str) -> None:
    RemoteTransparentLlm(target).close()
