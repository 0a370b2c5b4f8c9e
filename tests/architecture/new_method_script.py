"""Reads the method that test_new_method.py adds to a copy of the repository, of which this process imports everything:
what comes from a real server is what the class gives in this process. Arguments: a folder to write to."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
import torch
from safetensors import safe_open

from transparent_llm import RemoteTransparentLlm, cli, errors
from transparent_llm.contract import LargestElements
from transparent_llm.testing import serve_in_process
from transparent_llm.wire import requests
from transparent_llm.wire._gen import tensor_pb2
from transparent_llm.wire.assembler import Assembler
from transparent_llm.wire.methods import SERVICE
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.demo import DEMO_MODEL
from transparent_llm_server.models.reading import ContractReader

SENTENCES = ["The cat sat on the mat", "Hello"]
NAMES = ("largest_elements.values", "largest_elements.ids")


def require_same(got: LargestElements, wanted: tuple[torch.Tensor, ...]) -> None:
    assert type(got) is LargestElements, type(got)
    for tensor, expected in zip(got, wanted, strict=True):
        assert tensor.dtype == expected.dtype
        assert torch.equal(tensor, expected)


def read_with_a_break(llm: RemoteTransparentLlm, address: str, after: int) -> LargestElements:
    """By hand, as a stream that broke after so many bytes."""
    held = Assembler()
    with grpc.insecure_channel(address) as channel:
        for message in streamed(channel, llm.run_id(), tensor_pb2.TensorOptions(max_chunk_bytes=16)):
            held.add(message)
            if held.received >= after:
                break
        held.resume()
        rest = tensor_pb2.TensorOptions(resume_offset=held.received, etag=held.etag)
        before = held.received
        for message in streamed(channel, llm.run_id(), rest):
            held.add(message)
    names, tensors = zip(*held.tensors(), strict=True)
    assert names == NAMES
    assert before == after
    return LargestElements(*tensors)


def streamed(channel: grpc.Channel, run_id: str, options: tensor_pb2.TensorOptions) -> Iterator[bytes]:
    request = requests.of_method("largest_elements", run_id, 1, options=options)
    messages: Iterator[bytes] = channel.unary_stream(f"/{SERVICE}/LargestElements", type(request).SerializeToString)(
        request, timeout=60
    )
    return messages


def refused(kind: type[Exception], words: str, read: Callable[[], object]) -> None:
    with pytest.raises(kind, match=words):
        read()


def check(local: TransformerLensTransparentLlm, llm: RemoteTransparentLlm, address: str, folder: Path) -> None:
    (values, ids), entering = local.largest_elements(1), local.residual_in(1)
    nbytes = values.nbytes + ids.nbytes
    assert torch.equal(values, entering.sort(dim=2, descending=True).values[..., :3])
    assert torch.equal(values, entering.gather(2, ids))

    require_same(llm.largest_elements(1), (values, ids))
    for each in (local, llm):
        with each.reading(padding="nan"):  # of several tensors the floating ones
            marked = LargestElements(*each.largest_elements(1))
        require_same(LargestElements(marked.values[llm.mask()], marked.ids), (values[llm.mask()], ids))
        assert marked.values[~llm.mask()].isnan().all()
    llm.largest_elements(1).ids.zero_()  # the second read is from the cache, and still the caller's own
    require_same(llm.largest_elements(1), (values, ids))
    first, tokens, second = llm.fetch([("largest_elements", 0), "tokens", ("largest_elements", 1)])
    require_same(first, local.largest_elements(0))
    require_same(second, (values, ids))
    assert torch.equal(tokens, local.tokens())
    with llm.reading(pos=slice(0, 2), rank=slice(1, None), dtype=torch.float64):
        require_same(llm.largest_elements(1), (values[:, :2, 1:].double(), ids[:, :2, 1:]))
        require_same(llm.fetch([("largest_elements", 1)])[0], (values[:, :2, 1:].double(), ids[:, :2, 1:]))
    for after in (16, values.nbytes, values.nbytes + 16, nbytes):
        require_same(read_with_a_break(llm, address, after), (values, ids))

    (planned,) = llm.plan([("largest_elements", 0)])
    assert (planned.nbytes, planned.transfer_bytes) == (nbytes, nbytes)
    assert [(part.name, part.dtype, part.dims, part.nbytes) for part in planned.parts] == [
        (NAMES[0], values.dtype, ("batch", "pos", "rank"), values.nbytes),
        (NAMES[1], ids.dtype, ("batch", "pos", "rank"), ids.nbytes),
    ]
    refused(IndexError, "layer 99", lambda: llm.largest_elements(99))

    served = ContractReader(local)("largest_elements", 1)  # as that of any other implementation of the class
    require_same(LargestElements(*(part.tensor() for part in served)), (values, ids))

    output = folder / "out.safetensors"
    assert cli.main(["get", "largest_elements", SENTENCES[0], "--layer=1", f"--target={address}", f"-o{output}"]) == 0
    with safe_open(output, "pt") as file:
        assert torch.equal(file.get_tensor(NAMES[1]), ids[:1])
        assert file.metadata()["dims.ids"] == "batch,pos,rank"


def check_limits(address: str, nbytes: int) -> None:
    """All bytes of a value count, where it must fit and where it is kept."""
    with RemoteTransparentLlm(address, max_bytes=nbytes - 1) as narrow:
        narrow.run(SENTENCES)
        refused(errors.TooLargeError, str(nbytes), lambda: narrow.largest_elements(1))
    for cache_bytes, kept in ((4 * nbytes - 1, 0), (4 * nbytes, nbytes)):
        with RemoteTransparentLlm(address, cache_bytes=cache_bytes) as llm:
            llm.run(SENTENCES)
            llm.largest_elements(1)
            assert llm._shared.cache.nbytes == kept


def main(folder: Path) -> None:
    local = TransformerLensTransparentLlm(str(DEMO_MODEL))
    with serve_in_process(local) as llm:
        for each in (local, llm):
            each.run(SENTENCES)
        check(local, llm, llm.server.address, folder)
        check_limits(llm.server.address, sum(part.nbytes for part in llm.largest_elements(1)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    of_it = "largest or table or schema or servicer"
    sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-c", "/dev/null", "-k", of_it, "test_agreement.py"]))
