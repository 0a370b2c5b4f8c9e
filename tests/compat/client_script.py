"""What a user's program does, in an environment with a protobuf of its choice.

    python -I -W error client_script.py ADDRESS PROTOBUF_VERSION

Prints as JSON what it saw. `observe` works on any `TransparentLlm`, so that the test can look at the same things
in its own process and compare.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import google.protobuf
import grpc
import torch
from google.rpc import error_details_pb2

from transparent_llm import TransparentLlm, connect
from transparent_llm.errors import IndexOutOfRangeError

SENTENCES = ["The river comes down from the hills", "Nobody knows"]


def digest(tensor: torch.Tensor) -> str:
    """Names dtype, shape and every bit."""
    data = tensor.detach().cpu().contiguous().numpy().tobytes()
    return f"{tensor.dtype} {list(tensor.shape)} {hashlib.sha256(data).hexdigest()}"


def observe(llm: TransparentLlm) -> dict[str, Any]:
    """One of each kind: a run, tensors, a tensor sent and received, strings, an error with its details."""
    llm.run(SENTENCES)
    residual = llm.residual_out(1)
    try:
        llm.residual_out(99)
    except IndexOutOfRangeError as error:
        refusal = {"message": error.message, "reason": error.reason, "metadata": error.metadata}
    return {
        "batch_size": llm.batch_size(),
        "tokens": digest(llm.tokens()),
        "residual_out": digest(residual),
        "attention_matrix": digest(llm.attention_matrix(0, 1, 2)),
        "unembed": digest(llm.unembed(residual[0, -1], normalize=True)),
        "tokens_to_strings": llm.tokens_to_strings(llm.tokens()[0]),
        "refusal": refusal,
    }


def require_own_libraries(protobuf_version: str) -> None:
    """Nothing is proven if the libraries under test are those of the environment behind this one."""
    assert google.protobuf.__version__ == protobuf_version, google.protobuf.__version__
    own = Path(sys.prefix).resolve()
    for module in (google.protobuf, error_details_pb2, grpc):
        assert own in Path(str(module.__file__)).resolve().parents, f"{module.__name__} is {module.__file__}"


def main(address: str, protobuf_version: str) -> None:
    require_own_libraries(protobuf_version)
    torch.set_num_threads(1)
    with connect(address, timeout_s=60) as llm:
        print(json.dumps({"is_serving": llm.is_serving(), **observe(llm)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
