"""Answers to a generation are held to what was asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from transparent_llm.generation import Chat, GenerationSettings, NextToken, Prompts
from transparent_llm.run_input import RunInput
from transparent_llm.wire._gen import generation_pb2 as pb
from transparent_llm.wire.generation import Arrived
from transparent_llm.wire.protocol_error import ProtocolError

PROMPTS = RunInput.of_tokens([[1, 2], [3]])


def token(row: int, token_id: int, finished: int = 0, **more: Any) -> Any:
    return pb.GeneratedToken(row=row, token_id=token_id, text="x", logprob=-1.0, finished=finished, **more)  # type: ignore[arg-type]


def answer() -> list[Any]:
    """Two steps of the first row, one of the second, and the run."""
    run = pb.GeneratedRun(run_id="r", rows=[pb.TokenRow(token_ids=[1, 2, 5]), pb.TokenRow(token_ids=[3])])
    first = pb.GenerateResponse(tokens=[token(0, 5, top_ids=[5], top_logprobs=[-1.0]), token(1, 7, 3)])
    return [first, pb.GenerateResponse(tokens=[token(0, 6, 2)]), pb.GenerateResponse(run=run)]


def arrived(messages: list[Any], prompts: Prompts = PROMPTS) -> Arrived:
    found = Arrived(prompts, GenerationSettings(2, top_logprobs=1))
    for message in messages:
        found.take(message.SerializeToString())
    return found


def test_a_right_answer_is_taken() -> None:
    found = Arrived(PROMPTS, GenerationSettings(2, top_logprobs=1))
    first, second, last = (found.take(message.SerializeToString()) for message in answer())
    assert first is not None
    assert first.tokens == (NextToken(5, "x", -1.0, None, (5,), (-1.0,)), NextToken(7, "x", -1.0, "eos"))
    assert second is not None
    assert second.tokens == (NextToken(6, "x", -1.0, "length"), None)
    assert last is None
    assert (found.rows, found.run_id, found.n_steps) == (((1, 2, 5), (3,)), "r", 2)
    chat = Arrived(Chat.of([{"role": "user", "content": "x"}]), GenerationSettings(1))
    chat.take(pb.GenerateResponse(tokens=[token(0, 5, 2)]).SerializeToString())
    chat.take(
        pb.GenerateResponse(run=pb.GeneratedRun(run_id="r", rows=[pb.TokenRow(token_ids=[8])])).SerializeToString()
    )
    assert chat.rows == ((8,),)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pop(1),
        lambda m: m.append(m[0]),
        lambda m: m[0].tokens.pop(),
        lambda m: m[0].tokens.append(token(1, 7)),
        lambda m: setattr(m[0].tokens[1], "row", 2),
        lambda m: setattr(m[0].tokens[1], "row", 0),
        lambda m: setattr(m[0].tokens[1], "finished", 0),
        lambda m: setattr(m[0].tokens[0], "token_id", -1),
        lambda m: setattr(m[0].tokens[1], "finished", 9),
        lambda m: m[0].tokens[0].top_ids.append(4),
        lambda m: m[0].tokens[0].top_logprobs.append(4.0),
        lambda m: setattr(m[1].tokens[0], "finished", 0),
        lambda m: m[1].run.CopyFrom(m[2].run),
        lambda m: m[2].run.rows.pop(),
        lambda m: setattr(m[2].run, "run_id", ""),
        lambda m: setattr(m[2].run, "run_id", "x" * 300),
        lambda m: m[2].run.rows[0].token_ids.append(6),
        lambda m: m[2].run.rows[1].token_ids.insert(0, 3),
        lambda m: m[2].run.rows[1].token_ids.pop(),
        lambda m: m[2].run.rows[0].token_ids.__setitem__(2, 9),
    ],
)
def test_what_is_no_answer_is_told(change: Callable[[list[Any]], object]) -> None:
    messages = answer()
    change(messages)
    with pytest.raises(ProtocolError):
        arrived(messages)
