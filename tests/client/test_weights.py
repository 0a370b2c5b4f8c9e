"""Output vectors of neurons: fetched once, kept in memory and on disk, and never trusted blindly."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
from safetensors.torch import load_file, save_file

from support.servers.servers import Listener, Watcher, running, tiny
from transparent_llm import RemoteTransparentLlm, TransparentLlm, errors
from transparent_llm.wire import slices
from transparent_llm.wire._gen import service_pb2
from transparent_llm_server.app import Server

ROWS = [[1, 2, 3, 4], [5, 6]]
LAYER_BYTES = 256 * 64 * 4
"""Of all output vectors of a layer of the tiny GPT-2."""


def local_run(family: str = "gpt2") -> TransparentLlm:
    local = tiny(family).copy()
    local.run_tokens(ROWS)
    return local


@contextmanager
def opened(server: Server, **options: Any) -> Iterator[RemoteTransparentLlm]:
    """A client that has run."""
    with RemoteTransparentLlm(server.address, timeout_s=30, **options) as llm:
        llm.run_tokens(ROWS)
        yield llm


@contextmanager
def watched(**options: Any) -> Iterator[tuple[RemoteTransparentLlm, Watcher]]:
    watcher = Watcher()
    with running(watcher, chunk_bytes=16_384) as server, opened(server, **options) as llm:
        yield llm, watcher


def mixture(*interceptors: Watcher) -> AbstractContextManager[Server]:
    """A server of a model with four experts of 96 neurons, two of which are chosen for each token."""
    return running(*interceptors, serving={"mixtral": tiny("mixtral")})


def weight_calls(watcher: Watcher) -> list[str]:
    return [name for name in watcher.names if name.startswith("NeuronOutput")]


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def assert_right(llm: TransparentLlm, local: TransparentLlm, layer: int = 1, pos: int = 2) -> None:
    assert torch.equal(llm.decomposed_ffn_out(0, layer, pos), local.decomposed_ffn_out(0, layer, pos))


class Cut(Listener):
    """Output vectors are cut where nobody asked for it, so that the server sends too few, or too short ones."""

    def __init__(self, axis: str) -> None:
        super().__init__()
        self._part = slices.to_wire([(axis, slice(0, 1))])

    def _streamed(
        self, answer: Callable[..., Iterator[Any]], request: Any, context: grpc.ServicerContext
    ) -> Iterator[Any]:
        if isinstance(request, service_pb2.NeuronOutputsRequest):
            del request.options.slices[:]
            request.options.slices.extend(self._part)
        return answer(request, context)


# In memory


@pytest.mark.parametrize("axis", ["d_ffn", "d_model"])
def test_output_vectors_of_another_shape_are_refused(axis: str) -> None:
    with running(Cut(axis)) as server, opened(server) as llm:
        with pytest.raises(errors.InternalError, match=r"where F32 \[256, 64\] .* was asked for"):
            llm.decomposed_ffn_out(0, 1, 2)


def test_the_output_vectors_of_a_layer_come_once() -> None:
    local = local_run()
    with watched() as (llm, watcher):
        for batch_i, pos in [(0, 0), (0, 3), (1, 1), (0, 0)]:
            assert torch.equal(llm.decomposed_ffn_out(batch_i, 1, pos), local.decomposed_ffn_out(batch_i, 1, pos))
        assert weight_calls(watcher) == ["NeuronOutputs"]
        assert_right(llm, local, layer=0)
        assert weight_calls(watcher) == ["NeuronOutputs"] * 2


def test_they_outlive_the_run_and_serve_copies() -> None:
    with watched() as (llm, watcher):
        llm.decomposed_ffn_out(0, 1, 0)
        llm.run_tokens([[7, 8, 9]])
        llm.decomposed_ffn_out(0, 1, 0)
        twin = llm.copy()
        twin.run_tokens(ROWS)
        assert_right(twin, local_run())
        assert weight_calls(watcher) == ["NeuronOutputs"]


def test_once_they_are_there_a_neuron_needs_no_call() -> None:
    local = local_run()
    with watched() as (llm, watcher):
        llm.decomposed_ffn_out(0, 1, 0)
        for neuron in (0, 11, 255):
            assert torch.equal(llm.neuron_output(1, neuron), local.neuron_output(1, neuron))
        assert weight_calls(watcher) == ["NeuronOutputs"]
        assert torch.equal(llm.neuron_output(0, 3), local.neuron_output(0, 3))
        assert weight_calls(watcher) == ["NeuronOutputs", "NeuronOutput"]


def test_neurons_read_one_by_one_come_together_from_the_second_on() -> None:
    local = local_run()
    with watched() as (llm, watcher):
        for neuron in range(256):
            assert torch.equal(llm.neuron_output(1, neuron), local.neuron_output(1, neuron))
        assert weight_calls(watcher) == ["NeuronOutput", "NeuronOutputs"]
        assert_right(llm, local)
        assert weight_calls(watcher) == ["NeuronOutput", "NeuronOutputs"]


def test_a_neuron_needs_no_run() -> None:
    with running() as server, RemoteTransparentLlm(server.address, timeout_s=30) as llm:
        for neuron in range(3):
            assert torch.equal(llm.neuron_output(1, neuron), tiny().neuron_output(1, neuron))


def test_what_the_caller_writes_harms_no_later_read() -> None:
    local = local_run()
    with watched() as (llm, _):
        for _ in range(3):
            for read in (lambda model: model.neuron_output(1, 5), lambda model: model.decomposed_ffn_out(0, 1, 2)):
                got = read(llm)
                assert torch.equal(got, read(local))
                got.zero_()


@pytest.mark.parametrize(("layer", "neuron"), [(1, 256), (1, -257), (2, 0), (-3, 0)])
def test_a_neuron_that_is_not_there_is_told_as_ever(layer: int, neuron: int) -> None:
    with watched() as (llm, _):
        llm.decomposed_ffn_out(0, 1, 0)
        for _ in range(2):
            with pytest.raises(errors.IndexOutOfRangeError, match="is out of range: valid indices are 0 to "):
                llm.neuron_output(layer, neuron)


def test_an_index_that_is_out_of_range_fetches_no_weights() -> None:
    with watched() as (llm, watcher):
        for read in [(0, 2, 0), (0, -3, 0), (0, 1, 4), (2, 1, 0)]:
            with pytest.raises(errors.IndexOutOfRangeError, match="is out of range: valid indices are 0 to "):
                llm.decomposed_ffn_out(*read)
        assert weight_calls(watcher) == []


# Limits


@pytest.mark.parametrize("weights_bytes", [0, 4 * LAYER_BYTES - 1])
def test_with_no_room_the_value_comes_whole(weights_bytes: int) -> None:
    local = local_run()
    with watched(weights_bytes=weights_bytes) as (llm, watcher):
        assert_right(llm, local)
        assert watcher.messages == LAYER_BYTES // 16_384
        for neuron in range(3):
            assert torch.equal(llm.neuron_output(1, neuron), local.neuron_output(1, neuron))
        assert weight_calls(watcher) == ["NeuronOutput"] * 3


def test_a_quarter_of_the_room_is_enough() -> None:
    with watched(weights_bytes=4 * LAYER_BYTES) as (llm, watcher):
        for pos in range(3):
            assert_right(llm, local_run(), pos=pos)
        assert weight_calls(watcher) == ["NeuronOutputs"]


def test_a_part_alone_is_cut_by_the_server() -> None:
    local = local_run()
    with watched() as (llm, watcher), llm.reading(hidden=slice(10, 20), d_model=slice(3)):
        assert torch.equal(llm.decomposed_ffn_out(0, 1, 2), local.decomposed_ffn_out(0, 1, 2)[10:20, :3])
        assert weight_calls(watcher) == []
        assert watcher.messages == 1


# On disk


def test_another_client_finds_them_in_the_folder(tmp_path: Path) -> None:
    local, watcher = local_run(), Watcher()
    with running(watcher) as server:
        with opened(server, weights_dir=tmp_path) as llm:
            assert_right(llm, local)
        assert weight_calls(watcher) == ["NeuronOutputs"]
        with opened(server, weights_dir=str(tmp_path)) as llm:
            assert_right(llm, local)
            assert torch.equal(llm.neuron_output(1, 7), local.neuron_output(1, 7))
        assert weight_calls(watcher) == ["NeuronOutputs"]
        (path,) = files_in(tmp_path)
        _, *within = path.relative_to(tmp_path).parts
        assert within == [tiny().describe().digest, "layer1_0_256.safetensors"]


def test_the_folder_may_be_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSPARENT_LLM_WEIGHTS_DIR", str(tmp_path / "new" / "folder"))
    with watched() as (llm, _):
        assert_right(llm, local_run())
    assert len(files_in(tmp_path / "new" / "folder")) == 1


def test_a_file_holds_the_vectors_themselves(tmp_path: Path) -> None:
    with watched(weights_dir=tmp_path) as (llm, _):
        llm.decomposed_ffn_out(0, 1, 2)
    (path,) = files_in(tmp_path)
    rows = load_file(path)["rows"]
    assert rows.shape == (256, 64)
    for neuron in (0, 100, 255):
        assert torch.equal(rows[neuron], tiny().neuron_output(1, neuron))


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with watched() as (llm, _):
        llm.decomposed_ffn_out(0, 1, 2)
    assert files_in(tmp_path) == []


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def something_else(path: Path) -> None:
    path.write_bytes(b"this is no such file, but it is long enough to be taken for one" * 10)


def one_byte_changed(path: Path, at: int = -1000) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def of_another_shape(path: Path) -> None:
    save_file({"rows": torch.zeros(3, 5)}, path)


def without_rows(path: Path) -> None:
    save_file({"other": torch.zeros(3, 5)}, path)


def reshaped_with_its_own_checksum(path: Path) -> None:
    """The same bytes, and so the right checksum: only the shape tells."""
    data = path.read_bytes()
    assert b"[256,64]" in data
    path.write_bytes(data.replace(b"[256,64]", b"[64,256]"))


def retyped_with_its_own_checksum(path: Path) -> None:
    data = path.read_bytes()
    assert b'"F32"' in data
    path.write_bytes(data.replace(b'"F32"', b'"I32"'))


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES = [
    truncated,
    empty,
    something_else,
    one_byte_changed,
    of_another_shape,
    without_rows,
    reshaped_with_its_own_checksum,
    retyped_with_its_own_checksum,
    a_folder,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_file_is_fetched_again(
    damage: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    local, watcher = local_run(), Watcher()
    with running(watcher) as server:
        with opened(server, weights_dir=tmp_path) as llm:
            llm.decomposed_ffn_out(0, 1, 2)
        (path,) = files_in(tmp_path)
        damage(path)
        with caplog.at_level(logging.WARNING, "transparent_llm"), opened(server, weights_dir=tmp_path) as llm:
            assert_right(llm, local)
        assert weight_calls(watcher) == ["NeuronOutputs"] * 2
    warned = [record.getMessage() for record in caplog.records if record.name == "transparent_llm"]
    assert any(str(path) in message and "is fetched again" in message for message in warned)


@pytest.mark.parametrize("damage", DAMAGES[:-1], ids=lambda damage: damage.__name__)
def test_a_damaged_file_is_mended(damage: Callable[[Path], None], tmp_path: Path) -> None:
    watcher = Watcher()
    with running(watcher) as server:
        for _ in range(3):
            with opened(server, weights_dir=tmp_path) as llm:
                assert_right(llm, local_run())
            (path,) = files_in(tmp_path)
            if len(weight_calls(watcher)) == 1:
                damage(path)
        assert weight_calls(watcher) == ["NeuronOutputs"] * 2


@pytest.mark.parametrize("inside", ["", "deeper"], ids=["itself", "below"])
def test_a_folder_that_cannot_be_written_only_warns(
    inside: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file is where the folder should be."""
    taken = tmp_path / "taken"
    taken.write_text("mine")
    with caplog.at_level(logging.WARNING, "transparent_llm"):
        with watched(weights_dir=taken / inside) as (llm, watcher):
            for pos in (0, 1):
                assert_right(llm, local_run(), pos=pos)
            assert weight_calls(watcher) == ["NeuronOutputs"]
    assert f"cannot keep weights in {taken / inside}: " in caplog.text
    assert taken.read_text() == "mine"


def test_a_folder_that_cannot_even_be_looked_at_only_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "transparent_llm"):
        with watched(weights_dir=tmp_path / ("long" * 100)) as (llm, _):
            assert_right(llm, local_run())
    assert "cannot keep weights in" in caplog.text


def test_two_models_do_not_share_a_folder_of_weights(tmp_path: Path) -> None:
    with running() as server, opened(server, weights_dir=tmp_path) as llm:
        assert_right(llm, local_run())
    with mixture() as server, opened(server, weights_dir=tmp_path) as llm:
        assert_right(llm, local_run("mixtral"))
    assert {path.parent.name for path in files_in(tmp_path)} == {
        tiny(family).describe().digest for family in ("gpt2", "mixtral")
    }


# Many at once


def read_behind(barrier: threading.Barrier, llm: RemoteTransparentLlm, values: list[torch.Tensor]) -> None:
    barrier.wait(30)
    values.append(llm.decomposed_ffn_out(0, 1, 2))


def read_at_once(clients: list[RemoteTransparentLlm]) -> list[torch.Tensor]:
    """The same value through each of them, in threads that begin together."""
    barrier, values = threading.Barrier(len(clients)), list[torch.Tensor]()
    threads = [threading.Thread(target=read_behind, args=(barrier, llm, values)) for llm in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return values


def test_two_clients_at_once_leave_one_good_file(tmp_path: Path) -> None:
    watcher, wanted = Watcher(), local_run().decomposed_ffn_out(0, 1, 2)
    with running(watcher) as server:
        with opened(server, weights_dir=tmp_path) as one, opened(server, weights_dir=tmp_path) as other:
            values = read_at_once([one, other])
        assert len(values) == 2
        assert all(torch.equal(value, wanted) for value in values)
        assert [path.name for path in files_in(tmp_path)] == ["layer1_0_256.safetensors"]
        sent = weight_calls(watcher)
        with opened(server, weights_dir=tmp_path) as late:
            assert torch.equal(late.decomposed_ffn_out(0, 1, 2), wanted)
        assert weight_calls(watcher) == sent


def test_threads_with_copies_fetch_them_once() -> None:
    wanted = local_run().decomposed_ffn_out(0, 1, 2)
    with watched() as (llm, watcher):
        values = read_at_once([llm.copy() for _ in range(6)])
        assert len(values) == 6
        assert all(torch.equal(value, wanted) for value in values)
        assert weight_calls(watcher) == ["NeuronOutputs"]


# Experts


def test_of_experts_only_the_chosen_ones_come() -> None:
    local, watcher = local_run("mixtral"), Watcher()
    with mixture(watcher) as server, opened(server) as llm:
        assert_right(llm, local)
        assert weight_calls(watcher) == ["NeuronOutputs"] * 2
        assert_right(llm, local)
        assert weight_calls(watcher) == ["NeuronOutputs"] * 2


def test_each_expert_comes_once() -> None:
    local, watcher = local_run("mixtral"), Watcher()
    with mixture(watcher) as server, opened(server) as llm:
        real = [(b, int(last) + 1) for b, last in enumerate(local.last())]
        for batch_i, layer, pos in [(b, layer, pos) for b, n in real for layer in range(2) for pos in range(n)]:
            value = llm.decomposed_ffn_out(batch_i, layer, pos)
            assert torch.equal(value, local.decomposed_ffn_out(batch_i, layer, pos))
        assert 4 <= len(weight_calls(watcher)) <= 8


def test_a_neuron_of_an_expert_is_the_models_own() -> None:
    local = local_run("mixtral")
    with mixture() as server, opened(server) as llm:
        llm.decomposed_ffn_out(0, 1, 2)
        for neuron in (0, 95, 96, 200, 383):
            for _ in range(2):
                assert torch.equal(llm.neuron_output(1, neuron), local.neuron_output(1, neuron))


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "axes", [{"hidden": slice(90, 300, 7)}, {"d_model": slice(0, 64, 9)}, {"hidden": slice(5), "d_model": slice(2)}]
)
def test_a_part_of_experts_is_the_same_before_and_after_they_are_kept(
    axes: dict[str, slice], dtype: torch.dtype | None
) -> None:
    wanted = local_run("mixtral").decomposed_ffn_out(0, 1, 2)[
        axes.get("hidden", slice(None)), axes.get("d_model", slice(None))
    ]
    wanted = wanted if dtype is None else wanted.to(dtype)
    with mixture() as server, opened(server) as llm:
        for prepare in (lambda: None, lambda: llm.decomposed_ffn_out(0, 1, 3), lambda: llm.neuron_output(1, 2)):
            prepare()
            twin = llm.copy()
            with twin.reading(dtype=dtype, **axes):
                assert torch.equal(twin.decomposed_ffn_out(0, 1, 2), wanted)


def test_another_client_finds_experts_in_the_folder(tmp_path: Path) -> None:
    local, watcher = local_run("mixtral"), Watcher()
    with mixture(watcher) as server:
        for _ in range(2):
            with opened(server, weights_dir=tmp_path) as llm:
                assert_right(llm, local)
                assert_right(llm, local, layer=0)
        assert weight_calls(watcher) == ["NeuronOutputs"] * 4
    assert len(files_in(tmp_path)) == 4


# Of heads


def read_all(llm: Any) -> list[torch.Tensor]:
    """Of each kind, also of a part of it."""
    part = llm.composition_scores("k", layers=slice(0, 1)).scores
    return [*llm.head_weights(1, 2), llm.composition_scores("k").scores, part, llm.copying_scores().scores]


CIRCUIT_CALLS = ["CompositionScores", "HeadWeights", "CompositionScores", "CopyingScores"]


def circuit_calls(watcher: Watcher) -> list[str]:
    return [name for name in watcher.names if name in CIRCUIT_CALLS]


def assert_same(got: list[torch.Tensor], wanted: list[torch.Tensor]) -> None:
    for one, other in zip(got, wanted, strict=True):
        assert one.shape == other.shape
        assert torch.equal(one.nan_to_num(nan=7.0), other.nan_to_num(nan=7.0))


def test_circuits_of_heads_come_once_and_what_the_caller_writes_harms_no_later_read() -> None:
    wanted, watcher = read_all(tiny()), Watcher()
    with running(watcher) as server, RemoteTransparentLlm(server.address, timeout_s=30) as llm:
        for each in (llm, llm.copy(), llm):
            got = read_all(each)
            assert_same(got, wanted)
            for tensor in got:
                tensor.zero_()
        llm.run_tokens(ROWS)  # of the same model: it changes nothing
        assert_same(read_all(llm), wanted)
        assert circuit_calls(watcher) == CIRCUIT_CALLS
        llm.composition_scores("q")  # another question
        assert circuit_calls(watcher) == [*CIRCUIT_CALLS, "CompositionScores"]


def test_with_no_room_circuits_are_asked_for_again() -> None:
    with watched(weights_bytes=0) as (llm, watcher):
        for _ in range(2):
            llm.copying_scores()
        assert circuit_calls(watcher) == ["CopyingScores"] * 2


def test_another_client_finds_scores_of_heads_in_the_folder(tmp_path: Path) -> None:
    wanted, watcher = read_all(tiny()), Watcher()
    with running(watcher) as server:
        for _ in range(2):
            with opened(server, weights_dir=tmp_path) as llm:
                assert_same(read_all(llm), wanted)
        assert circuit_calls(watcher) == [*CIRCUIT_CALLS, "HeadWeights"]
        files = files_in(tmp_path)
        assert {path.parent.name for path in files} == {tiny().describe().digest}
        for path in files:
            one_byte_changed(path, -1)
        with opened(server, weights_dir=tmp_path) as llm:
            assert_same(read_all(llm), wanted)
        assert circuit_calls(watcher)[5:] == CIRCUIT_CALLS
