"""What the runner itself does in a scenario, and looks at: steps with `runner`, by the names of these methods."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from contextlib import ExitStack

from conformance import lies
from conformance.edits import Ran
from conformance.expected import Fields
from conformance.stage import Call, Stage, demo_model
from conformance.twins import Twins
from support.network.gate import Gate, gate
from support.servers.engines import SOON
from transparent_llm import TransparentLlm
from transparent_llm.errors import BusyError
from transparent_llm.wire import requests
from transparent_llm.wire.methods import METHODS, RUN_KEY_HEADER

METHOD_RPCS = {method.rpc for method in METHODS.values()} | {
    *("Fetch", "ReleaseRun", "Generate", "Gradients", "Sweep", "Plan", "CompareRuns")
}
OF_RUN = {method.rpc for method in METHODS.values() if method.of_run} | {
    *("Run", "Fetch", "ReleaseRun", "Generate", "Gradients", "Sweep", "Plan", "CompareRuns")
}


class Runner:
    """Of one scenario."""

    def __init__(self, stage: Stage, twins: Twins) -> None:
        self._stage, self._twins = stage, twins
        self._heard = self._carried = self._interruptions = 0
        self._gates: dict[str, Gate] = {}
        self._closing = ExitStack()

    def play(self, step: Fields) -> Iterator[str]:
        """One step; what was not as it must be."""
        arguments = {key: value for key, value in step.items() if key != "runner"}
        yield from getattr(self, step["runner"])(**arguments) or ()

    def close(self) -> None:
        """Everything is as before."""
        self._stage.gate.open()
        self._stage.ears.refusals = []
        self._closing.close()

    def target(self, server: str) -> str:
        """The address of a proxy before a server of that name, for clients of several."""
        if server not in self._gates:
            self._gates[server] = self._closing.enter_context(gate(self._stage.fronts[server]))
        return self._gates[server].address

    def lead_to(self, server: str) -> None:
        """Clients reach that server from now on."""
        self._twins.server = server
        self._stage.lead_to(server)

    def lose(self, server: str) -> None:
        """Clients of several do not reach that one any more."""
        self._gates[server].close()

    def mark(self) -> None:
        """What is looked at later counts from here."""
        gate = self._stage.gate
        self._heard, self._carried = len(self._stage.ears.heard), gate.to_client
        self._interruptions = gate.interruptions
        self._stage.ears.someone_left.clear()

    def release(self, llms: Sequence[str] = ("main",)) -> None:
        """Make the server forget what these have run."""
        for run_id in [self._run_id(self._twins.ran[llm]) for llm in llms]:
            self._stage.release(run_id)
        self.mark()

    def expect_run_ids(self, llms: Sequence[str]) -> Iterator[str]:
        """Their current runs have the names that the Python client's have, which asks for the same."""
        for llm in llms:
            wanted = self._run_id(self._twins.ran[llm])
            if self._twins.run_ids[llm] != wanted:
                yield f"the run of {llm} is {self._twins.run_ids[llm]}, not {wanted}"
        self.mark()

    def interrupt_after(self, bytes: int, silence_s: float = 0.0) -> None:
        """A browser drops what a page has not read when its connection breaks, so `silence_s` lets it read."""
        self.mark()
        self._stage.gate.interrupt_after(bytes, silence_s)

    def hold_after(self, bytes: int) -> None:
        """Nothing more comes to the client after so many, until `open`."""
        self.mark()
        self._stage.gate.hold_after(bytes)

    def open(self) -> None:
        """Everything comes to the client."""
        self._stage.gate.open()

    def lie(self, about: str | None) -> None:
        """What servers say from now on, by its name in lies.py; nothing but the truth with None."""
        assert about is None or about in {**lies.HEADERS, **lies.ANSWERS}, about
        self._stage.ears.lie = about

    def refuse(self, calls: int, retry_after_s: float) -> None:
        """The next calls are told that there is no room, and when to come back."""
        self.mark()
        self._stage.ears.refusals = [BusyError("no room", retry_after_s=retry_after_s)] * calls

    def expect_interruptions(self, count: int) -> Iterator[str]:
        """So many were made since the mark."""
        made = self._stage.gate.interruptions - self._interruptions
        if made != count:
            yield f"{made} interruptions were made, not {count}"

    def expect_carried(self, at_most: int) -> Iterator[str]:
        """No more bytes came to the client since the mark."""
        carried = self._stage.gate.to_client - self._carried
        if carried > at_most:
            yield f"{carried} bytes came to the client, more than {at_most}"

    def expect_calls(self, names: list[str]) -> Iterator[str]:
        """The server heard these since the mark."""
        heard = [call.rpc for call in self._heard_since(METHOD_RPCS)]
        if heard != names:
            yield f"the server heard {heard}, not {names}"

    def expect_left(self) -> Iterator[str]:
        """A stream was told to end, so that the server need not go on."""
        if not self._stage.ears.someone_left.wait(SOON):
            yield "the server was not told that the client left"

    def expect_one_run_key(self) -> Iterator[str]:
        """The run and all reads of it since the mark have the same one."""
        keys = {call.metadata.get(RUN_KEY_HEADER) for call in self._heard_since(OF_RUN)}
        if len(keys) != 1 or None in keys:
            yield f"a run and its reads had the run keys {keys}"

    def expect_run_keys(self, keys: list[str]) -> Iterator[str]:
        """These, on the calls of Run since the mark."""
        heard = [call.metadata.get(RUN_KEY_HEADER) for call in self._heard_since({"Run"})]
        if heard != keys:
            yield f"runs had the run keys {heard}, not {keys}"

    def expect_servers(self, count: int) -> Iterator[str]:
        """So many different servers heard calls of runs since the mark."""
        servers = {call.server for call in self._heard_since(OF_RUN)}
        if len(servers) != count:
            yield f"the servers {sorted(servers)} heard of runs, where {count} were to"

    def expect_kept_servers(self) -> Iterator[str]:
        """Each run and all its reads since the mark were heard by one server."""
        servers: dict[str | None, set[str]] = {}
        for call in self._heard_since(OF_RUN):
            servers.setdefault(call.metadata.get(RUN_KEY_HEADER), set()).add(call.server)
        if not servers or None in servers:
            yield f"runs and reads had the run keys {sorted(map(str, servers))}"
        for key, heard in servers.items():
            if len(heard) != 1:
                yield f"{sorted(heard)} heard of the run with the key {key}"

    def _heard_since(self, names: Container[str]) -> list[Call]:
        """Calls of these RPCs since the mark."""
        return [call for call in self._stage.ears.heard[self._heard :] if call.rpc in names]

    def _run_id(self, ran: Ran) -> str:
        """The name that the server "main" gives a run; it is made there, and what it takes from."""
        twins: dict[Ran, TransparentLlm] = {source: demo_model().copy() for _, source in ran.sources}
        names = {twin: self._run_id(source) for source, twin in twins.items()}
        edits = ran.made(twins.__getitem__)
        return self._stage.run(requests.run(ran.run_input, "", edits, names.__getitem__))
