"""The server as a process: its one line, its exit codes, its signals."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from support.models.families import save
from support.servers.certificates import Authority
from support.servers.owners import BearerTokenFile
from support.servers.patience import waiting
from support.servers.server_processes import TIMEOUT_S, log_of, process, ready_address
from transparent_llm import RemoteTransparentLlm, connect
from transparent_llm.client.config import ClientConfig
from transparent_llm.client.transport.calls import Calls
from transparent_llm.client.transport.interrupt import Interruptible
from transparent_llm.errors import DeadlineError, UnavailableError
from transparent_llm.wire import frames, requests
from transparent_llm.wire._gen import tensor_pb2
from transparent_llm_server import TransformerLensTransparentLlm


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("gpt2", tmp_path_factory.mktemp("models") / "tiny")


def test_it_serves_the_demo_model_by_default_and_ends_cleanly_on_sigterm() -> None:
    with process("--listen", "127.0.0.1:0") as running:
        with connect(ready_address(running)) as llm:
            assert llm.model_info().name == "demo"
            assert llm.is_serving()
        running.send_signal(signal.SIGTERM)
        assert running.wait(TIMEOUT_S) == 0
        assert running.stdout is not None
        assert running.stdout.read() == ""  # one line on standard output, everything else is log
        assert "SIGTERM: draining" in log_of(running)


def test_ctrl_c_ends_it_cleanly_too(tiny_folder: Path) -> None:
    with process("--listen", "127.0.0.1:0", "--model", str(tiny_folder)) as running:
        ready_address(running)
        running.send_signal(signal.SIGINT)
        assert running.wait(TIMEOUT_S) == 0


def test_a_client_is_served_to_the_end_of_its_call_while_the_server_drains(tiny_folder: Path) -> None:
    with process("--listen", "127.0.0.1:0", "--model", str(tiny_folder)) as running:
        with connect(ready_address(running), progress=False) as llm:
            llm.run_tokens([list(range(1, 61))] * 8)
            stream = llm._calls._messages(  # the first message has come, the others wait in the server
                "Logits", _logits_request(llm), "", time.monotonic() + TIMEOUT_S, Interruptible()
            )
            received = [next(stream)]
            running.send_signal(signal.SIGTERM)
            received.extend(stream)
            assert sum(len(frames.parse(message).data) for message in received) == 8 * 60 * 500 * 4
        assert running.wait(TIMEOUT_S) == 0


def _logits_request(llm: RemoteTransparentLlm) -> object:
    options = tensor_pb2.TensorOptions(max_chunk_bytes=16_384)
    return requests.of_method("logits", llm.run_id(), options=options)


def test_several_models_are_chosen_by_name(tiny_folder: Path, tmp_path: Path) -> None:
    llama = save("llama_gqa", tmp_path / "llama")
    models = ("--model", str(tiny_folder), "--model", f"other={llama}")
    with process("--listen", "127.0.0.1:0", *models) as running:
        address = ready_address(running)
        with connect(address, model="tiny") as first, connect(address, model="other") as second:
            assert [model.info.name for model in first.server_info().models] == ["tiny", "other"]
            assert (first.describe().architecture, second.describe().architecture) == (
                "GPT2LMHeadModel",
                "LlamaForCausalLM",
            )
            for llm, folder in ((first, tiny_folder), (second, llama)):
                local = TransformerLensTransparentLlm(str(folder))
                llm.run_tokens([[1, 2, 3]])
                local.run_tokens([[1, 2, 3]])
                assert torch.equal(llm.logits(), local.logits())
        with (
            connect(address) as unnamed,
            pytest.raises(ValueError, match="several models are served, name one: tiny, other"),
        ):
            unnamed.model_info()


def test_a_file_lists_models_one_pinned_one_on_demand(tiny_folder: Path, tmp_path: Path) -> None:
    llama, config = save("llama_gqa", tmp_path / "llama"), tmp_path / "server.toml"
    config.write_text(
        f'listen = "127.0.0.1:0"\n[[models]]\nsource = "{tiny_folder}"\n'
        f'[[models]]\nsource = "{llama}"\nalias = "other"\naliases = ["llama"]\nload = "on_demand"\n'
    )
    with process("--config", str(config), "--device", "cpu") as running:
        address = ready_address(running)
        with connect(address, model="tiny") as first, connect(address, model="llama") as second:
            states = [(model.info.name, model.state.value) for model in first.server_info().models]
            assert states == [("tiny", "loaded"), ("other", "unloaded")]
            command = [sys.executable, "-m", "transparent_llm", "info", "--target", address]
            before = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            assert "\nmodel other, llama: unloaded, to be loaded from a local folder\n" in before
            second.run_tokens([[1, 2, 3]])
            local = TransformerLensTransparentLlm(str(llama))
            local.run_tokens([[1, 2, 3]])
            assert torch.equal(second.logits(), local.logits())
            assert second.describe().info.name == "other"
            after = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            assert "\nmodel other, llama: LlamaForCausalLM, F32 on cpu\n" in after
        log = log_of(running)
        assert "other: reading weights" in log
        assert "other: loaded in " in log
    config.write_text(f'[[models]]\nsource = "{llama}"\nload = "sometimes"\n')
    with process("--config", str(config)) as running:
        assert running.wait(TIMEOUT_S) == 1
        assert "transparent-llm: models[0].load is 'sometimes': it must be pinned or on_demand" in log_of(running)


def test_a_port_that_is_taken_is_an_error_not_a_second_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        listen = f"127.0.0.1:{holder.getsockname()[1]}"
        with process("--listen", listen) as running:
            assert running.wait(TIMEOUT_S) == 1
            assert f"transparent-llm: cannot listen on {listen}: is it in use by another server?" in log_of(running)


def test_a_model_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with process("--listen", "127.0.0.1:0", "--model", str(tmp_path)) as running:
        assert running.wait(TIMEOUT_S) == 1
        assert running.stdout is not None
        assert running.stdout.read() == ""
        assert "transparent-llm: " in log_of(running).splitlines()[-1]


def test_a_model_that_would_be_wrong_is_refused(tmp_path: Path) -> None:
    folder = save("opt_post_norm", tmp_path / "opt")
    with process("--listen", "127.0.0.1:0", "--model", str(folder)) as running:
        assert running.wait(TIMEOUT_S) == 1
        assert "OPT with do_layer_norm_before=False" in log_of(running)
        assert "ready" not in log_of(running)


def test_a_socket_file_is_made_used_and_reused_after_a_kill(tiny_folder: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        listen = ("--listen", f"unix:{folder}/llm.sock", "--model", str(tiny_folder))
        with process(*listen) as running:
            address = ready_address(running)
            assert address == f"unix:{folder}/llm.sock"
            with process(*listen) as second:
                assert second.wait(TIMEOUT_S) == 1
                assert "another server listens there" in log_of(second)
            running.kill()  # leaves its socket file behind
            running.wait()
        assert os.path.exists(f"{folder}/llm.sock")
        with process(*listen) as again, connect(ready_address(again)) as llm:
            assert llm.model_info().name == "tiny"


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "notes.txt"
    precious.write_text("precious")
    with process("--listen", f"unix:{precious}") as running:
        assert running.wait(TIMEOUT_S) == 1
        assert "a file that is not a socket is there" in log_of(running)
    assert precious.read_text() == "precious"


def test_prompts_stay_out_of_the_log(tiny_folder: Path) -> None:
    with process("--listen", "127.0.0.1:0", "--model", str(tiny_folder)) as running:
        with connect(ready_address(running)) as llm:
            llm.run(["my very secret prompt"])
            llm.logits()
            with pytest.raises(IndexError):
                llm.residual_in(17)
        running.send_signal(signal.SIGTERM)
        running.wait(TIMEOUT_S)
        log = log_of(running)
        assert "secret" not in log
        assert "Run OK" in log
        assert "Logits OK" in log
        assert "ResidualIn OUT_OF_RANGE" in log


def test_a_server_that_leaves_says_so_and_answers_still(tiny_folder: Path) -> None:
    announced = ("--drain-announce-s", "600")
    with process("--listen", "127.0.0.1:0", "--model", str(tiny_folder), *announced) as running:
        with connect(ready_address(running)) as llm:
            assert llm.is_serving()
            running.send_signal(signal.SIGTERM)
            deadline = time.monotonic() + TIMEOUT_S
            while llm.is_serving():
                assert time.monotonic() < deadline
            llm.run_tokens([[1, 2, 3]])
            assert llm.logits().shape == (1, 3, 500)
        running.send_signal(signal.SIGTERM)  # a second time: at once
        assert running.wait(TIMEOUT_S) == -signal.SIGTERM


def test_the_announced_time_passes_and_the_server_ends(tiny_folder: Path) -> None:
    with process("--listen", "127.0.0.1:0", "--model", str(tiny_folder), "--drain-announce-s", "0.2") as running:
        ready_address(running)
        running.send_signal(signal.SIGTERM)
        assert running.wait(TIMEOUT_S) == 0


def test_a_lost_device_ends_the_process_with_its_own_exit_code() -> None:
    script = Path(__file__).with_name("failing_server.py")
    with process(script=script) as running:
        with connect(ready_address(running), timeout_s=60) as llm:
            assert llm.is_serving()
            with waiting(llm, timeout_s=4):
                with pytest.raises(DeadlineError, match="did not come back within 4 s"):
                    llm.run_tokens([[1, 2, 3]])  # waits for the server to be restarted
                with suppress(UnavailableError, DeadlineError):  # when the process is gone already
                    assert not llm.is_serving()
        assert running.wait(TIMEOUT_S) == 70
        assert "nothing can be computed any more: exiting with code 70" in log_of(running)


def test_a_server_that_hangs_is_lost_long_before_the_deadline(tiny_folder: Path) -> None:
    with process("--listen", "127.0.0.1:0", "--model", str(tiny_folder)) as running:
        config = ClientConfig(target=ready_address(running), keepalive_s=1.0, keepalive_timeout_s=1.0)
        calls = Calls(config)
        assert calls.is_serving()
        running.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, running.pid, os.WSTOPPED | os.WNOWAIT)  # every thread of it
        started = time.monotonic()
        with pytest.raises(UnavailableError) as lost:
            calls.is_serving()
        assert time.monotonic() - started < 60  # of 300; a minute is what gRPC takes by itself
        assert config.target in str(lost.value)
        running.send_signal(signal.SIGCONT)
        calls.channel.close()


def test_a_server_that_others_can_reach_wants_protection_or_a_word(tiny_folder: Path) -> None:
    everywhere = ("--listen", "0.0.0.0:0", "--model", str(tiny_folder))
    with process(*everywhere) as running:
        assert running.wait(TIMEOUT_S) == 1
        assert "0.0.0.0:0 can be reached from other hosts, and everybody there could use the models" in log_of(running)
    with process(*everywhere, "--insecure", "--log-prompts") as running:
        port = ready_address(running).rpartition(":")[2]
        with connect(f"127.0.0.1:{port}") as llm:
            llm.run(["my very public prompt"])
        running.send_signal(signal.SIGTERM)
        running.wait(TIMEOUT_S)
        assert "my very public prompt" in log_of(running)


def test_tokens_and_certificates_are_options_of_the_command(tiny_folder: Path, tmp_path: Path) -> None:
    authority, file = Authority(tmp_path / "authority"), BearerTokenFile(tmp_path / "tokens", "alice")
    own, client = authority.issue("localhost"), authority.issue("a.example", common_name="alice")
    tls = ("--tls-cert", str(own.cert), "--tls-key", str(own.key), "--tls-client-ca", str(authority.path))
    arguments = ("--listen", "0.0.0.0:0", "--model", str(tiny_folder), "--tokens", str(file.path), *tls)
    with process(*arguments) as running:
        target = f"localhost:{ready_address(running).rpartition(':')[2]}"
        access = {"token": file.bearer_tokens["alice"], "tls_ca": str(authority.path), **client.as_client}
        with connect(target, **access) as llm:
            assert llm.model_info().name == "tiny"
        flags = [word for name, value in access.items() for word in (f"--{name.replace('_', '-')}", value)]
        command = [sys.executable, "-m", "transparent_llm"]
        for verb in ("info", "health"):
            finished = subprocess.run([*command, verb, "--target", target, *flags], capture_output=True, text=True)
            assert finished.returncode == 0, finished.stderr
