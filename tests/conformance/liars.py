"""Drivers that pass on what the Python client's says, but for one thing: the suite has to find it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from conformance.driver import Driver


class Liar(Driver):
    """Passes on what the Python client's driver answers, but for one thing."""

    def __init__(self, honest: Driver, lie: Callable[[dict[str, Any]], None]) -> None:
        self._honest, self._lie = honest, lie

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        answer = self._honest.ask(op, **fields)
        self._lie(answer)
        return answer


def _in_tensors(change: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    def lie(answer: dict[str, Any]) -> None:
        ok = answer.get("ok", {})
        for tensor in ok.get("tensors", [ok["tensor"]] if "tensor" in ok else []):
            change(tensor)

    return lie


def _flip_a_bit(name: str) -> Callable[[dict[str, Any]], None]:
    def change(tensor: dict[str, Any]) -> None:
        content = bytearray(base64.b64decode(tensor[name]))
        if content:
            content[-1] ^= 1
            tensor[name] = base64.b64encode(content).decode()

    return _in_tensors(change)


def _set(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return _in_tensors(lambda tensor: tensor.update({name: value}))


def _in_errors(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def lie(answer: dict[str, Any]) -> None:
        for error in (answer.get("error"), answer.get("ok", {}).get("error")):
            if error:
                error[name] = value

    return lie


def _in_value(answer: dict[str, Any]) -> None:
    if answer.get("ok", {}).get("value") is not None:
        answer["ok"]["value"] = "something else"


def _in_steps(name: str, change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    def lie(answer: dict[str, Any]) -> None:
        value = answer.get("ok", {}).get("value")
        if isinstance(value, dict) and value.get("steps"):
            token = next(token for token in value["steps"][-1] if token)
            token[name] = change(token[name])

    return lie


def _a_step_less(answer: dict[str, Any]) -> None:
    value = answer.get("ok", {}).get("value")
    if isinstance(value, dict) and value.get("steps"):
        value["steps"].pop()


def _another_run(answer: dict[str, Any]) -> None:
    value = answer.get("ok", {}).get("value")
    if isinstance(value, dict) and value.get("steps"):
        value["run_id"] = "another"


def _in_plan(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def lie(answer: dict[str, Any]) -> None:
        told = answer.get("ok", {}).get("value")
        if isinstance(told, list):
            told[0][name] = value

    return lie


def _in_comparisons(name: str, change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], None]:
    def lie(answer: dict[str, Any]) -> None:
        told = answer.get("ok", {}).get("value")
        if isinstance(told, list) and told and "kl" in told[-1]:
            told[-1][name] = change(told[-1][name])

    return lie


def _in_parts(answer: dict[str, Any]) -> None:
    for part in answer.get("ok", {}).get("parts", {}).values():
        _flip_a_bit("data")({"ok": {"tensor": part}})


def _a_part_less(answer: dict[str, Any]) -> None:
    if parts := answer.get("ok", {}).get("parts"):
        parts.popitem()


def _no_progress(answer: dict[str, Any]) -> None:
    if "progress" in answer.get("ok", {}):
        answer["ok"]["progress"].pop()


def _standing_progress(answer: dict[str, Any]) -> None:
    if told := answer.get("ok", {}).get("progress"):
        told[:-1] = [told[0]] * (len(told) - 1)


def _no_seconds(answer: dict[str, Any]) -> None:
    if told := answer.get("ok", {}).get("seconds"):
        told.pop()


LIES = {
    "bits": ("slices", _flip_a_bit("data")),
    "numbers": ("dtypes", _flip_a_bit("values")),
    "axes": ("methods", _set("dims", ["a", "b"])),
    "shape": ("methods", _set("shape", [1])),
    "dtype": ("dtypes", _set("dtype", "F64")),
    "bits in a fetch": ("fetch", _flip_a_bit("data")),
    "class": ("errors_of_arguments", _in_errors("class", "Error")),
    "reason": ("errors_of_arguments", _in_errors("reason", "BECAUSE")),
    "metadata": ("errors_of_arguments", _in_errors("metadata", {})),
    "message": ("errors_of_models", _in_errors("message", "no")),
    "value": ("methods", _in_value),
    "part of a value": ("model", _in_value),
    "progress": ("progress", _no_progress),
    "seconds": ("timing", _no_seconds),
    "token": ("generate_stops", _in_steps("token_id", lambda token: token + 1)),
    "text of a token": ("generate_stops", _in_steps("text", lambda text: text + " ")),
    "end of a row": ("generate_stops", _in_steps("finished", lambda _: None)),
    "log-probability": ("generate_stops", _in_steps("logprob", lambda logprob: logprob - 1e-3)),
    "likeliest tokens": ("generate", _in_steps("top_ids", lambda ids: ids[::-1])),
    "steps": ("generate_stops", _a_step_less),
    "run of what was generated": ("generate", _another_run),
    "gradients": ("gradients", _in_parts),
    "a gradient less": ("gradients", _a_part_less),
    "edited gradients": ("gradients_edited", _in_parts),
    "an edge less": ("edges", _a_part_less),
    "edges into positions": ("contribution_edges_to", _in_parts),
    "divergence": ("compare", _in_comparisons("kl", lambda kl: kl + 1e-3)),
    "divergences": ("compare", _in_comparisons("kl_by_pos", lambda kls: kls[1:])),
    "features": ("features", _in_parts),
    "weights of a head": ("circuits", _in_parts),
    "shape in a plan": ("plan", _in_plan("shape", [1])),
    "bytes in a plan": ("plan", _in_plan("bytes", 1)),
    "what would travel": ("plan", _in_plan("transfer_bytes", 1)),
    "progress that stands still": ("progress", _standing_progress),
}
"""By what they are about: the scenario that finds it, and the lie."""

VECTOR_LIES = {
    "elements": ("tensors", _flip_a_bit("data")),
    "numbers": ("tensors", _flip_a_bit("values")),
    "name": ("streams", _set("name", "x")),
    "resumes": ("streams", lambda answer: answer.get("ok", {}).update(resumes=[{"offset": 1, "etag": "one"}])),
    "class": ("errors", _in_errors("class", "Error")),
    "retry": ("errors", _in_errors("retry_after_s", 7.0)),
}
