"""The blocks of a plain model, of which the lower ones can be left out of a pass whose stream above them is known.

The model's own forward prepares what blocks are given besides the stream (positions, masks, inputs of each layer), and
goes on to do so; a block that is left out gives the stream and computes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch

_Forward = Callable[..., Any]


class Blocks:
    """Of one model. One pass at a time."""

    def __init__(self, blocks: Sequence[torch.nn.Module]) -> None:
        self._blocks = blocks
        self._forms: dict[int, type[tuple[Any, ...]] | type[list[Any]] | None] = {}
        self._lengths: dict[int, int] = {}

    @property
    def are_known(self) -> bool:
        """Whether a pass was looked at."""
        return len(self._forms) == len(self._blocks)

    @contextmanager
    def looked_at(self) -> Iterator[None]:
        """Within this block, passes show in what form each block gives the stream."""
        with ExitStack() as stack:
            for i, block in enumerate(self._blocks):
                stack.enter_context(_with_forward(block, partial(self._looking, i, block.forward)))
            yield

    @contextmanager
    def begun_at(self, start: int, stream: torch.Tensor) -> Iterator[None]:
        """Within this block, passes leave out the blocks below `start`, which is entered by this stream [batch pos d].

        Raises:
            KeyError: no pass was `looked_at` before.
        """
        with ExitStack() as stack:
            for i in range(start):
                known = stream if i == start - 1 else None
                form, length = self._forms[i], self._lengths[i]
                given = partial(_given, known, form, length)
                stack.enter_context(_with_forward(self._blocks[i], given))
            yield

    def _looking(self, index: int, forward: _Forward, *args: Any, **kwargs: Any) -> Any:
        output = forward(*args, **kwargs)
        is_one = isinstance(output, torch.Tensor)
        self._forms[index] = None if is_one else type(output)
        self._lengths[index] = 1 if is_one else len(output)
        return output


def _given(stream: torch.Tensor | None, form: Any, length: int, *args: Any, **kwargs: Any) -> Any:
    """In the form of the block's own output, what it is given, or the stream."""
    given = args[0] if args else kwargs["hidden_states"]
    passed = given if stream is None else stream.reshape(given.shape).to(given)
    return passed if form is None else form([passed, *[None] * (length - 1)])


@contextmanager
def _with_forward(module: torch.nn.Module, forward: _Forward) -> Iterator[None]:
    """Within this block a module computes something else."""
    own = vars(module)
    before = own.get("forward")  # weights that lie elsewhere come by one of the object's own
    own["forward"] = forward
    try:
        yield
    finally:
        if before is None:
            del own["forward"]
        else:
            own["forward"] = before
