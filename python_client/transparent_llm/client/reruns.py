"""Runs that their server lost and that are made again."""

from __future__ import annotations

from transparent_llm.errors import NotFoundError

MOST_RERUNS = 3
"""Of one read. Behind a proxy a run can fall to another server each time that one comes or goes; a server that forgets
it each time at once has too little room."""


def is_lost_run(error: NotFoundError) -> bool:
    """Whether it says that the server no longer has the run."""
    return error.reason == "RUN_NOT_FOUND"


def missing_source(error: NotFoundError) -> str:
    """The run id, or the digest of the kept vector, that is not there for an edit; empty if it is something else."""
    if error.reason == "VECTOR_NOT_FOUND":
        return error.metadata.get("digest", "")
    return error.metadata.get("run_id", "") if is_lost_run(error) else ""


def require_same_model(was: str, now: str, target: str) -> None:
    """Refuse to go on with the values of another model.

    Args:
        was: Digest of the model that ran first.
        now: Digest of the model that ran the same input again.
        target: The server's address, for the message.

    Raises:
        NotFoundError: MODEL_CHANGED, as they differ.
    """
    if now != was:
        raise NotFoundError(
            f"{target} lost the run and now serves another model under this name; call run() again if that is what "
            "you want",
            reason="MODEL_CHANGED",
            metadata={"was": was, "is": now},
        )
