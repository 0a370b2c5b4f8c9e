"""Two owners on one server: to each, the other's runs are not there, by whatever call."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from support.servers.engines import SOON
from support.servers.owners import BearerTokenFile
from support.servers.servers import running, tiny
from support.servers.stub import stub
from transparent_llm.analysis.differentiation import Differentiation, SiteGradient
from transparent_llm.analysis.metrics import Metric
from transparent_llm.analysis.sweep_cells import Cell, Sweep
from transparent_llm.generation import GenerationSettings
from transparent_llm.interventions import head, patch, residual_in, zero
from transparent_llm.run_input import RunInput
from transparent_llm.wire import generation, gradients, requests, sweeps
from transparent_llm.wire._gen import gradients_pb2, service_pb2, sweeps_pb2, tensor_pb2
from transparent_llm.wire.methods import METHODS
from transparent_llm_server.app import Server

ROWS = [[1, 2, 3, 4, 5, 6], [7, 8, 9]]
RPCS = {rpc.name: rpc for rpc in service_pb2.DESCRIPTOR.services_by_name["TransparentLlmService"].methods}
OF_A_RUN = sorted(name for name, rpc in RPCS.items() if "run_id" in rpc.input_type.fields_by_name)
OF_NO_RUN = {
    "ServerInfo",  # tells the caller's own numbers
    "Dataset",  # is the operator's, and for everyone
    "Run",  # names a run of the caller's own
    "Generate",  # the same
    "KeepVector",  # what is kept is the caller's own, and found by nobody else
    "ListVectors",
    "DropVector",
    "ModelInfo",
    "TokensToStrings",
    "Tokenize",
    "Unembed",
    "TopTokens",
    "NeuronOutput",
    "NeuronOutputs",
    "HeadWeights",
    "CompositionScores",
    "CopyingScores",
}
"""Everything else must be refused for another's run; a new call has to be put into one of the two."""

BY_RPC = {method.rpc: method for method in METHODS.values()}
STREAMS_OF_A_RUN = [name for name in OF_A_RUN if RPCS[name].output_type is tensor_pb2.TensorChunk.DESCRIPTOR]


@dataclass
class Owner:
    """A caller with a token, and the run of `ROWS` that is theirs."""

    token: str
    service: Any
    address: str
    run_id: str = ""

    def call(self, rpc: str, request: Any) -> list[Any]:
        """All messages that come."""
        answer = getattr(self.service, rpc)(request, metadata=[("authorization", f"Bearer {self.token}")], timeout=SOON)
        return list(answer) if RPCS[rpc].server_streaming else [answer]

    def run(self, rows: list[list[int]] = ROWS) -> str:
        request = service_pb2.RunRequest()
        for row in rows:
            request.tokens.sequences.add(token_ids=row)
        run_id: str = self.call("Run", request)[0].run_id
        return run_id


@pytest.fixture(scope="module")
def bearer_tokens(tmp_path_factory: pytest.TempPathFactory) -> BearerTokenFile:
    return BearerTokenFile(tmp_path_factory.mktemp("owners") / "tokens", "alice", "bob")


@pytest.fixture(scope="module")
def server(bearer_tokens: BearerTokenFile) -> Iterator[Server]:
    with running(tokens_file=bearer_tokens.path) as server:
        yield server


@pytest.fixture
def owners(server: Server, bearer_tokens: BearerTokenFile) -> Iterator[tuple[Owner, Owner]]:
    """Alice and Bob, each with the same sentences run."""
    with grpc.insecure_channel(server.address) as channel:
        service = stub(channel)
        alice, bob = (Owner(token, service, server.address) for token in bearer_tokens.bearer_tokens.values())
        for owner in (alice, bob):
            owner.run_id = owner.run()
        yield alice, bob
        for owner in (alice, bob):
            owner.call("ReleaseRun", service_pb2.ReleaseRunRequest(run_id=owner.run_id))


def request_for(rpc: str, run_id: str) -> Any:
    """One that is answered if the run is there."""
    if rpc in ("Fetch", "Plan"):
        request = getattr(service_pb2, f"{rpc}Request")(run_id=run_id)
        request.items.add().residual_in.layer = 0
        return request
    if rpc == "CompareRuns":
        return service_pb2.CompareRunsRequest(run_id=run_id, other_run_id=run_id)
    if rpc == "Gradients":
        return gradients.to_wire(Differentiation(Metric(1), (SiteGradient(head(0)),)), run_id, str)
    if rpc == "Generate":
        edits = (patch(residual_in(0), tiny(), positions=[0]),)
        return generation.to_wire(RunInput.of_tokens(ROWS), GenerationSettings(2), edits, "", lambda _: run_id)
    if rpc == "Sweep":
        return sweeps.to_wire(Sweep((zero(head(0, 0)),), (Cell(),), (Metric(1),)), [0], run_id, str)
    if rpc in BY_RPC:
        indices = [0] * len(BY_RPC[rpc].arguments)
        parameters = [1 if parameter.name == "k" else parameter.default for parameter in BY_RPC[rpc].parameters]
        return requests.of_method(BY_RPC[rpc].name, run_id, *indices, *parameters)
    return getattr(service_pb2, RPCS[rpc].input_type.name)(run_id=run_id)


def refusal(owner: Owner, rpc: str, request: Any) -> tuple[Any, ...]:
    """Everything that a refused caller is told, with the run's name as RUN."""
    with pytest.raises(grpc.RpcError) as caught:
        owner.call(rpc, request)
    error: Any = caught.value
    trailing = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(trailing.pop("grpc-status-details-bin"))
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    kinds = [detail.type_url for detail in status.details]
    told = (error.details(), status.message, str(info), str(status.details[1:]))
    return error.code(), info.reason, kinds, trailing, [text.replace(request.run_id, "RUN") for text in told]


def test_every_call_reads_a_run_or_is_known_to_read_none() -> None:
    assert set(OF_A_RUN) | OF_NO_RUN == set(RPCS)
    assert not set(OF_A_RUN) & OF_NO_RUN
    assert {method.rpc for method in METHODS.values() if method.of_run} <= set(OF_A_RUN)


@pytest.mark.parametrize("rpc", OF_A_RUN)
def test_the_owner_is_answered(rpc: str, owners: tuple[Owner, Owner]) -> None:
    """Else the refusals below would prove nothing."""
    alice, _ = owners
    assert alice.call(rpc, request_for(rpc, alice.run_id))


@pytest.mark.parametrize("rpc", [rpc for rpc in OF_A_RUN if rpc != "ReleaseRun"])
def test_anothers_run_is_refused_as_one_that_never_was(rpc: str, owners: tuple[Owner, Owner]) -> None:
    alice, bob = owners
    refused = refusal(bob, rpc, request_for(rpc, alice.run_id))
    assert refused == refusal(bob, rpc, request_for(rpc, "0" * len(alice.run_id)))
    assert refused[:2] == (grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND")


def test_anothers_run_is_released_as_little_as_one_that_never_was(owners: tuple[Owner, Owner]) -> None:
    alice, bob = owners
    for run_id in (alice.run_id, "0" * len(alice.run_id)):
        (answer,) = bob.call("ReleaseRun", service_pb2.ReleaseRunRequest(run_id=run_id))
        assert answer == service_pb2.ReleaseRunResponse(released=False)
    assert alice.call("BatchSize", request_for("BatchSize", alice.run_id))[0].batch_size == 2


def test_nothing_is_compared_with_anothers_run(owners: tuple[Owner, Owner]) -> None:
    alice, bob = owners
    own = service_pb2.CompareRunsRequest(run_id=bob.run_id, other_run_id=bob.run_id)
    assert bob.call("CompareRuns", own)[0].rows[0].kl == 0.0
    refusals = []
    for run_id in (alice.run_id, "0" * len(alice.run_id)):
        with pytest.raises(grpc.RpcError) as caught:
            bob.call("CompareRuns", service_pb2.CompareRunsRequest(run_id=bob.run_id, other_run_id=run_id))
        error: Any = caught.value
        refusals.append((error.code(), error.details().replace(run_id, "RUN")))
    assert refusals[0] == refusals[1]
    assert refusals[0][0] is grpc.StatusCode.NOT_FOUND


def test_items_of_a_fetch_name_no_other_run(owners: tuple[Owner, Owner]) -> None:
    """An item is a whole request, with a field for a run; the run is that of the fetch."""
    alice, bob = owners
    refusals = []
    for run_id in (alice.run_id, "0" * len(alice.run_id)):
        request = service_pb2.FetchRequest(run_id=bob.run_id)
        request.items.add().residual_in.CopyFrom(service_pb2.ResidualInRequest(run_id=run_id, layer=0))
        refusals.append(refusal(bob, "Fetch", request))
    assert refusals[0] == refusals[1]
    assert refusals[0][0] is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("rpc", STREAMS_OF_A_RUN)
def test_anothers_stream_cannot_be_taken_up(rpc: str, owners: tuple[Owner, Owner]) -> None:
    alice, bob = owners
    first = alice.call(rpc, request_for(rpc, alice.run_id))[0]
    resumed = tensor_pb2.TensorOptions(resume_offset=4, etag=first.header.etag)
    request = request_for(rpc, alice.run_id)
    request.options.CopyFrom(resumed)
    assert refusal(bob, rpc, request)[:2] == (grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND")
    request.run_id = bob.run_id  # the same sentences: other bits to him, from the beginning
    own = bob.call(rpc, request)[0]
    assert own.offset == 0
    assert own.header.etag != first.header.etag


def test_equal_sentences_of_two_owners_are_two_runs(owners: tuple[Owner, Owner]) -> None:
    alice, bob = owners
    assert alice.run_id != bob.run_id
    assert (alice.run(), bob.run()) == (alice.run_id, bob.run_id)


def test_each_sees_only_their_own_in_the_numbers_of_the_server(owners: tuple[Owner, Owner]) -> None:
    alice, bob = owners

    def stored(owner: Owner) -> tuple[int, int]:
        (info,) = owner.call("ServerInfo", service_pb2.ServerInfoRequest())
        return info.stored_runs, info.stored_run_bytes

    before = stored(alice)
    assert before == stored(bob)
    assert before[0] == 1
    more = bob.run([[3, 2, 1]])
    assert stored(alice) == before
    assert stored(bob)[0] == 2
    assert stored(bob)[1] > before[1]
    bob.call("ReleaseRun", service_pb2.ReleaseRunRequest(run_id=more))


def test_gradients_take_nothing_of_anothers_run(owners: tuple[Owner, Owner]) -> None:
    alice, bob = owners
    request = request_for("Gradients", bob.run_id)
    request.sites[0].form, request.sites[0].run_id = gradients_pb2.GRADIENT_FORM_TIMES_DIFFERENCE, bob.run_id
    assert bob.call("Gradients", request)
    request.sites[0].run_id = alice.run_id
    code, reason, *_ = refusal(bob, "Gradients", request)
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND")
    request.ClearField("sites")
    request.path.run_id, request.path.steps = alice.run_id, 2
    assert refusal(bob, "Gradients", request)[1] == "RUN_NOT_FOUND"
    request.ClearField("path")
    request.edges.run_id = bob.run_id
    assert bob.call("Gradients", request)
    request.edges.run_id = alice.run_id
    assert refusal(bob, "Gradients", request)[1] == "RUN_NOT_FOUND"
    request = request_for("Gradients", bob.run_id)
    request.edits.extend(request_for("Sweep", bob.run_id).templates)
    request.edits[0].patch.run_id = alice.run_id
    assert refusal(bob, "Gradients", request)[1] == "RUN_NOT_FOUND"


def test_a_sweep_takes_nothing_of_anothers_run(owners: tuple[Owner, Owner]) -> None:
    alice, bob = owners
    request = request_for("Sweep", bob.run_id)
    request.templates[0].patch.run_id = alice.run_id
    code, reason, *_ = refusal(bob, "Sweep", request)
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND")
    request.templates[0].patch.run_id = bob.run_id
    assert bob.call("Sweep", request)
    request.metrics.add(kind=sweeps_pb2.METRIC_KIND_KL, pos=-1, run_id=alice.run_id)
    assert refusal(bob, "Sweep", request)[1] == "RUN_NOT_FOUND"


def test_a_generation_takes_nothing_of_anothers_run(owners: tuple[Owner, Owner]) -> None:
    alice, bob = owners
    with pytest.raises(grpc.RpcError, match="was not found"):
        bob.call("Generate", request_for("Generate", alice.run_id))
    last = bob.call("Generate", request_for("Generate", bob.run_id))[-1]
    assert [len(row.token_ids) for row in last.run.rows] == [len(row) + 1 for row in ROWS]
    with pytest.raises(grpc.RpcError, match="was not found"):
        alice.call("BatchSize", service_pb2.BatchSizeRequest(run_id=last.run.run_id))
