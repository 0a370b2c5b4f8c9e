"""Edits of a run that a request brings, and what they take from other runs."""

from __future__ import annotations

from transparent_llm.contract import TransparentLlm
from transparent_llm.wire import interventions
from transparent_llm.wire._gen import service_pb2
from transparent_llm_server.models.serving import CompletedRun, PreparedRun, ServedModel
from transparent_llm_server.scheduling.run_store import RunStore


def edited(
    model: ServedModel,
    prepared: PreparedRun,
    request: service_pb2.RunRequest,
    runs: RunStore[CompletedRun],
    owner: str,
) -> PreparedRun:
    """A prepared run with the edits of its request. What they take from are runs of the same owner.

    Raises:
        InvalidRequestError: an edit is not whole, or makes no sense.
        NotFoundError: RUN_NOT_FOUND, with the id of a run that is not there.
        IndexOutOfRangeError: what it names is not there.
        NotSupportedError: the model cannot be edited, or not there.
    """
    ids: dict[TransparentLlm, str] = {}

    def run_of(run_id: str) -> TransparentLlm:
        llm = runs.get(run_id, owner).llm
        ids[llm] = run_id
        return llm

    return model.edited(prepared, interventions.from_wire(request.edits, run_of), ids.__getitem__)
