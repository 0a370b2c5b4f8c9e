"""Models that are loaded when they are asked for, through a real server and its clients."""

from __future__ import annotations

import concurrent.futures
import gc
import logging
import re
import threading
import weakref
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch

from support.models.families import save
from support.servers.backends import local_model
from support.servers.engines import SOON, held
from support.servers.polling import wait_until
from support.servers.servers import Watcher, running
from transparent_llm import RemoteTransparentLlm, connect
from transparent_llm.description import ModelDescription, ModelState
from transparent_llm.errors import (
    InvalidRequestError,
    ModelRefusedError,
    TooLargeError,
    TransparentLlmError,
    UnavailableError,
)
from transparent_llm_server.app import Server
from transparent_llm_server.config.model import ON_DEMAND, ModelConfig

ROWS = [[1, 2, 3, 4], [5, 6]]
FAMILIES = {"a": "gpt2", "b": "llama_gqa", "c": "mistral"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("on_demand")
    return {name: save(family, root / name) for name, family in FAMILIES.items()}


def on_demand(folder: Path, **more: Any) -> ModelConfig:
    return ModelConfig(str(folder), folder.name, **{"load": ON_DEMAND, **more})


def serving(*models: ModelConfig, watcher: Watcher | None = None, **settings: Any) -> AbstractContextManager[Server]:
    quick = {"listen": "127.0.0.1:0", "device": "cpu", "busy_retry_s": 0.05}
    return running(*([watcher] if watcher else []), models=models, **{**quick, **settings})


def client(server: Server, model: str, **options: Any) -> RemoteTransparentLlm:
    return RemoteTransparentLlm(server.address, model=model, **{"timeout_s": 60, "cache_bytes": 0, **options})


def described(server: Server, name: str) -> ModelDescription:
    with client(server, name) as llm:
        return next(model for model in llm.server_info().models if model.info.name == name)


def states(server: Server) -> str:
    with client(server, "") as llm:
        return " ".join(f"{model.info.name}:{model.state.value}" for model in llm.server_info().models)


def run(server: Server, name: str) -> torch.Tensor:
    """Logits of a run; its model is loaded if need be, and used when this returns."""
    with client(server, name) as llm:
        llm.run_tokens(ROWS)
        return llm.logits()


def begin_to_load(server: Server, name: str) -> None:
    with pytest.raises(UnavailableError), server._registry.use(name):  # as the calls do, without waiting
        pass


def loads(caplog: pytest.LogCaptureFixture, name: str) -> int:
    return sum(bool(re.match(rf"{name}: loaded in ", record.getMessage())) for record in caplog.records)


def weight_bytes(folders: dict[str, Path], name: str) -> int:
    """Of the loaded model."""
    return local_model(folders[name]).describe().weight_bytes


# Loading


def test_a_server_serves_before_any_model_is_loaded_and_tells_its_state(folders: dict[str, Path]) -> None:
    with serving(on_demand(folders["a"], aliases=("first",), revision="main")) as server:
        with connect(server.address) as llm:
            assert llm.is_serving()
        known = described(server, "a")
        assert (known.state, known.digest, known.info.n_layers) == (ModelState.UNLOADED, "", 0)
        assert (known.dtype, known.device, known.aliases, known.on_demand) == (torch.float32, "cpu", ("first",), True)
        assert (known.revision, known.detail) == ("main", "to be loaded from a local folder")
        assert known.weight_bytes > 0
        run(server, "a")
        now = described(server, "a")
        assert (now.state, now.detail, now.aliases, now.revision) == (ModelState.LOADED, "", ("first",), "main")
        assert now.digest == local_model(folders["a"]).describe().digest
        assert now.weight_bytes == weight_bytes(folders, "a") >= known.weight_bytes


@pytest.mark.parametrize("read", ["model_info", "tokens_to_strings", "neuron_output", "unembed", "run", "describe"])
def test_every_call_that_needs_a_model_waits_for_its_load(folders: dict[str, Path], read: str) -> None:
    local = local_model(folders["a"]).copy()
    arguments: dict[str, tuple[Any, ...]] = {
        "tokens_to_strings": (torch.tensor([1, 2]),),
        "neuron_output": (1, 2),
        "unembed": (torch.ones(64), True),
        "run": (["a"],),
    }
    with serving(on_demand(folders["a"])) as server, client(server, "a") as llm:
        got = getattr(llm, read)(*arguments.get(read, ()))
        wanted = getattr(local, read)(*arguments.get(read, ()))
        if isinstance(wanted, torch.Tensor):
            assert torch.equal(got, wanted)
        elif read in ("tokens_to_strings",):
            assert got == wanted
        assert states(server) == "a:loaded"


def test_many_callers_wait_for_one_load(folders: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    n, wanted = 8, local_model(folders["b"]).copy()
    wanted.run_tokens(ROWS)
    with serving(on_demand(folders["b"])) as server, concurrent.futures.ThreadPoolExecutor(n) as pool:
        together = threading.Barrier(n)

        def call(_: int) -> torch.Tensor:
            together.wait(SOON)
            return run(server, "b")

        for logits in pool.map(call, range(n)):
            assert torch.equal(logits, wanted.logits())
    assert loads(caplog, "b") == 1


def test_a_call_is_told_what_the_load_does_and_when_to_come_back(folders: dict[str, Path]) -> None:
    with serving(on_demand(folders["a"]), busy_retry_s=60.0) as server, client(server, "a", timeout_s=30.0) as llm:
        with held(server._engine):  # modules are built while no model computes, so the load goes no further
            with pytest.raises(UnavailableError):
                llm.model_info()
            wait_until(lambda: described(server, "a").detail == "reading weights")
            assert described(server, "a").state is ModelState.LOADING
            with pytest.raises(UnavailableError) as told:
                llm.run_tokens(ROWS)
        assert (told.value.reason, told.value.retry_after_s) == ("LOADING", 60.0)
        metadata = told.value.metadata
        assert (metadata["model"], metadata["state"], metadata["detail"]) == ("a", "loading", "reading weights")
        assert 0 <= float(metadata["seconds"]) < SOON
        assert re.fullmatch(
            r"model 'a' is being loaded: reading weights, [\d.]+ s so far; try again in 60 s", told.value.message
        )
        wait_until(lambda: states(server) == "a:loaded")
        assert llm.model_info().name == "a"


def test_a_client_that_waits_says_so_in_its_log(folders: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="transparent_llm")
    with serving(on_demand(folders["a"])) as server, concurrent.futures.ThreadPoolExecutor(1) as pool:
        with held(server._engine):  # longer than gRPC itself would try again
            running = pool.submit(run, server, "a")
            wait_until(lambda: any("model 'a' is being loaded: " in r.getMessage() for r in caplog.records))
        assert running.result(SOON).shape == (2, 4, 500)


def test_a_model_has_several_names(folders: dict[str, Path]) -> None:
    models = (on_demand(folders["a"], aliases=("first", "small")), on_demand(folders["b"]))
    with serving(*models) as server, connect(server.address, model="small", timeout_s=60) as llm:
        assert states(server) == "a:unloaded b:unloaded"  # a known name is no reason to load
        llm.run_tokens(ROWS)
        assert llm.model_info().name == llm.describe().info.name == "a"
        with client(server, "a") as other:
            other.run_tokens(ROWS)
            assert other.run_id() == llm.run_id()
        with pytest.raises(LookupError, match="the models are: a, first, small, b"):
            connect(server.address, model="third")


def test_a_name_is_given_once_also_among_aliases(folders: dict[str, Path]) -> None:
    models = (on_demand(folders["a"]), on_demand(folders["b"], aliases=("a",)))
    with pytest.raises(InvalidRequestError, match="two models are named 'a'"), serving(*models):
        pass


def test_calls_to_other_models_go_on_with_the_same_bits_during_a_load(folders: dict[str, Path]) -> None:
    """A load in bfloat16 sets torch's default dtype for the whole process while modules are built."""
    models = (ModelConfig(str(folders["a"]), "a"), on_demand(folders["b"], dtype=torch.bfloat16))
    with serving(*models) as server, client(server, "a") as llm:
        llm.run_tokens(ROWS)
        logits, parts = llm.logits(), llm.decomposed_attn(0, 1)
        begin_to_load(server, "b")
        answered = 0
        while not answered or described(server, "b").state is ModelState.LOADING:
            llm.release()
            llm.run_tokens(ROWS)
            assert torch.equal(llm.logits(), logits)
            assert torch.equal(llm.decomposed_attn(0, 1), parts)
            answered += 1
        assert described(server, "b").dtype is torch.bfloat16
        assert torch.get_default_dtype() is torch.float32


# Unloading


def test_the_least_recently_used_model_leaves(folders: dict[str, Path]) -> None:
    room = sum(weight_bytes(folders, name) for name in "abc") - 1  # for any two, not for three
    with serving(*map(on_demand, folders.values()), model_bytes=room) as server:
        run(server, "a")
        run(server, "b")
        run(server, "a")
        assert states(server) == "a:loaded b:loaded c:unloaded"
        run(server, "c")
        assert states(server) == "a:loaded b:unloaded c:loaded"
        run(server, "b")
        assert states(server) == "a:unloaded b:loaded c:loaded"
        with client(server, "") as llm:
            assert llm.server_info().limits.model_bytes == room


def test_a_pinned_model_stays(folders: dict[str, Path]) -> None:
    pinned = ModelConfig(str(folders["a"]), "a")
    room = sum(weight_bytes(folders, name) for name in "abc") - 1
    with serving(pinned, on_demand(folders["b"]), on_demand(folders["c"]), model_bytes=room) as server:
        assert states(server) == "a:loaded b:unloaded c:unloaded"
        run(server, "b")
        run(server, "c")
        assert states(server) == "a:loaded b:unloaded c:loaded"
        assert not described(server, "a").on_demand


def test_a_run_of_an_unloaded_model_is_made_again_with_the_same_id_and_bits(folders: dict[str, Path]) -> None:
    room = max(weight_bytes(folders, name) for name in "ab")
    with serving(on_demand(folders["a"]), on_demand(folders["b"]), model_bytes=room) as server:
        with client(server, "a") as llm:
            llm.run_tokens(ROWS)
            before, run_id = llm.logits(), llm.run_id()
            run(server, "b")
            known = described(server, "a")
            assert (known.state, known.info) == (ModelState.UNLOADED, local_model(folders["a"]).model_info())
            assert len(server._runs) == 1  # of b
            assert torch.equal(llm.logits(), before)
            assert llm.run_id() == run_id
            assert states(server) == "a:loaded b:unloaded"


def test_an_unloaded_model_leaves_memory(folders: dict[str, Path]) -> None:
    room = max(weight_bytes(folders, name) for name in "ab")
    with serving(on_demand(folders["a"]), on_demand(folders["b"]), model_bytes=room) as server:
        run(server, "a")
        (model,) = server._registry
        left = weakref.ref(model.llm.bridged._hf)  # type: ignore[attr-defined]
        del model
        run(server, "b")
        wait_until(lambda: gc.collect() is not None and left() is None)


def test_a_model_stays_while_a_call_reads_it(folders: dict[str, Path]) -> None:
    watcher, room = Watcher(hold_after=1), max(weight_bytes(folders, name) for name in "ab")
    rows = [list(range(1, 61))] * 20
    local = local_model(folders["a"]).copy()
    local.run_tokens(rows)
    models = (on_demand(folders["a"]), on_demand(folders["b"]))
    with serving(*models, watcher=watcher, model_bytes=room) as server:
        with client(server, "a") as reader, concurrent.futures.ThreadPoolExecutor(1) as pool:
            reader.run_tokens(rows)
            reading = pool.submit(reader.logits)
            assert watcher.holding.wait(SOON)
            with pytest.raises(UnavailableError) as told, server._registry.use("b"):
                pass
            assert told.value.reason == "LOADING"
            assert told.value.metadata["detail"] == "waiting for memory: a in use"
            assert "model 'b' cannot be loaded yet, waiting for memory: a in use; try again" in told.value.message
            assert states(server) == "a:loaded b:unloaded"
            watcher.release.set()
            assert torch.equal(reading.result(SOON), local.logits())
        run(server, "b")
        assert states(server) == "a:unloaded b:loaded"


def test_a_reader_that_leaves_lets_the_model_leave(folders: dict[str, Path]) -> None:
    watcher, room = Watcher(hold_after=1), max(weight_bytes(folders, name) for name in "ab")
    models = (on_demand(folders["a"]), on_demand(folders["b"]))
    with serving(*models, watcher=watcher, model_bytes=room) as server:
        reader = client(server, "a")
        reader.run_tokens([list(range(1, 61))] * 20)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            reading = pool.submit(reader.logits)
            assert watcher.holding.wait(SOON)
            reader.close()
            with pytest.raises(TransparentLlmError):
                reading.result(SOON)
        run(server, "b")
        assert states(server) == "a:unloaded b:loaded"


# What cannot be loaded


def test_a_model_that_can_never_fit_is_refused_with_the_numbers(folders: dict[str, Path]) -> None:
    pinned = ModelConfig(str(folders["a"]), "a")
    room = weight_bytes(folders, "a") + 1000
    with serving(pinned, on_demand(folders["b"]), model_bytes=room) as server, client(server, "b") as llm:
        with pytest.raises(TooLargeError) as refused:
            llm.model_info()
        needed = described(server, "b").weight_bytes
        assert refused.value.metadata == {"needed": str(needed), "allowed": "1000"}
        assert refused.value.message == (
            f"model 'b' takes {needed} bytes, of model_bytes = {room} the pinned models leave 1000: start the server "
            "with a larger model_bytes"
        )
        assert states(server) == "a:loaded b:unloaded"


def test_pinned_models_that_do_not_fit_are_an_error_before_anything_is_loaded(
    folders: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    models = [ModelConfig(str(folders[name]), name) for name in "ab"]
    with pytest.raises(TooLargeError) as refused, serving(*models, model_bytes=100_000):
        pass
    assert re.fullmatch(
        r"the pinned models take \d+ bytes \(a \d+, b \d+\), model_bytes allows 100000: load some of them on demand "
        r'\(load = "on_demand"\), or raise model_bytes',
        refused.value.message,
    )
    assert not [record for record in caplog.records if "reading weights" in record.getMessage()]


def test_a_failure_is_remembered(folders: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "late").mkdir()
    with serving(on_demand(tmp_path / "late")) as server, client(server, "late") as llm:
        errors = []
        for _ in range(3):
            with pytest.raises(InvalidRequestError, match=r"(no tokenizer for|cannot load model) '.*late'") as failed:
                llm.run_tokens(ROWS)
            errors.append(failed.value.message)
        assert len(set(errors)) == 1
        known = described(server, "late")
        assert (known.state, known.detail) == (ModelState.FAILED, errors[0])
    assert sum("late: not loaded: " in record.getMessage() for record in caplog.records) == 1


def test_a_failure_is_tried_again_after_a_while(tmp_path: Path) -> None:
    (tmp_path / "late").mkdir()
    with serving(on_demand(tmp_path / "late"), model_retry_s=0.0) as server, client(server, "late") as llm:
        begin_to_load(server, "late")
        wait_until(lambda: states(server) == "late:failed")
        save("gpt2", tmp_path / "late")
        assert llm.model_info().n_layers == 2
        assert states(server) == "late:loaded"


def test_a_model_that_would_be_wrong_is_refused_to_those_who_ask_for_it(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    wrong = save("opt_post_norm", tmp_path / "wrong")
    with serving(on_demand(folders["a"]), on_demand(wrong)) as server:
        with client(server, "wrong") as llm, pytest.raises(ModelRefusedError, match="OPT with do_layer_norm_before=Fa"):
            llm.model_info()
        run(server, "a")
        assert states(server) == "a:loaded wrong:failed"


def test_a_server_ends_during_a_load(folders: dict[str, Path]) -> None:
    with serving(on_demand(folders["a"])) as server:
        begin_to_load(server, "a")
