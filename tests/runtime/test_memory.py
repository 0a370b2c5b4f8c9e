"""Memory for results: like `torch.empty`, small or large, and used again or given back when nobody holds it."""

from __future__ import annotations

import gc
import platform
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transparent_llm.runtime import memory
from transparent_llm.wire import dtypes

LARGE_BYTES = 32 * 2**20
"""From here on a tensor has a mapping of its own."""

MIB = 2**20


MAPS = Path("/proc/self/maps")


def mapped_bytes(address: int, size: int) -> int:
    """How much of this place has memory. When it has been given back, stacks of threads may come there."""
    regions = [line.split(" ", 1)[0].split("-") for line in MAPS.read_text(encoding="utf-8").splitlines()]
    return sum(max(0, min(int(end, 16), address + size) - max(int(start, 16), address)) for start, end in regions)


linux_only = pytest.mark.skipif(not MAPS.exists(), reason="the memory of a process is in /proc")


@given(st.lists(st.integers(0, 5), max_size=5), st.sampled_from(list(dtypes.WIRE_BY_TORCH)))
@settings(deadline=None)
def test_a_small_tensor_has_shape_and_dtype_and_can_be_written_to(shape: list[int], dtype: torch.dtype) -> None:
    got = memory.empty(shape, dtype)
    assert (got.shape, got.dtype, got.device.type) == (torch.Size(shape), dtype, "cpu")
    assert got.is_contiguous()
    assert torch.equal(got.fill_(1), torch.ones(shape, dtype=dtype))


@pytest.mark.parametrize("extra", [-1, 0, 1], ids=["below", "at", "above"])
@pytest.mark.parametrize("dtype", dtypes.WIRE_BY_TORCH, ids=str)
def test_a_large_tensor_can_be_written_to_its_last_element(dtype: torch.dtype, extra: int) -> None:
    size = LARGE_BYTES // dtype.itemsize + extra
    got = memory.empty((size,), dtype)
    assert (got.shape, got.dtype, got.device.type) == ((size,), dtype, "cpu")
    assert torch.equal(got.fill_(1), torch.ones(size, dtype=dtype))


def test_a_large_tensor_has_its_shape() -> None:
    got = memory.empty((3, 1000, 5, 101), torch.float32)
    assert got.shape == (3, 1000, 5, 101)
    assert got.is_contiguous()
    assert got.zero_().add_(2).sum().item() == 2 * got.numel()


def test_the_shape_may_be_any_sequence() -> None:
    assert memory.empty(torch.Size([2, 3]), torch.int8).shape == (2, 3)
    assert memory.empty([LARGE_BYTES, 2], torch.int8).shape == (LARGE_BYTES, 2)


@pytest.mark.parametrize("shape", [(0,), (0, 2**40), (2**40, 0), (3, 0, 7)], ids=str)
def test_a_tensor_without_elements_has_its_shape(shape: Sequence[int]) -> None:
    got = memory.empty(shape, torch.float32)
    assert got.shape == tuple(shape)
    assert got.nbytes == 0


def test_a_scalar_is_a_tensor() -> None:
    assert memory.empty((), torch.int64).fill_(7).item() == 7


def test_two_large_tensors_share_nothing() -> None:
    first, second = (memory.empty((LARGE_BYTES,), torch.uint8).fill_(n) for n in (1, 2))
    assert first.unique().tolist() == [1]
    assert second.unique().tolist() == [2]


def test_another_device_is_torchs_own() -> None:
    got = memory.empty((LARGE_BYTES, 2), torch.float32, "meta")
    assert got.device.type == "meta"
    assert got.shape == (LARGE_BYTES, 2)


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu"), torch.device("cpu", 0)], ids=str)
def test_the_device_may_be_named_in_any_way(device: str | torch.device) -> None:
    assert memory.empty((LARGE_BYTES,), torch.int8, device).device.type == "cpu"


KEPT_BYTES = 2**30
"""Of freed tensors, at the most."""


@linux_only
def test_one_that_is_larger_than_what_is_kept_is_given_back_when_it_is_dropped() -> None:
    got = memory.empty((KEPT_BYTES + MIB,), torch.uint8)  # of address space: nothing of it is touched
    place = got.data_ptr(), got.nbytes
    assert mapped_bytes(*place) == KEPT_BYTES + MIB
    del got
    gc.collect()
    assert mapped_bytes(*place) < KEPT_BYTES / 2


@linux_only
def test_a_view_keeps_the_memory_and_its_end_gives_it_back() -> None:
    whole = memory.empty((KEPT_BYTES + MIB,), torch.uint8)
    place = whole.data_ptr(), whole.nbytes
    whole[-4:] = 9
    view = whole[-4:]
    del whole
    gc.collect()
    assert mapped_bytes(*place) == KEPT_BYTES + MIB
    assert view.tolist() == [9, 9, 9, 9]
    del view
    gc.collect()
    assert mapped_bytes(*place) < KEPT_BYTES / 2


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_the_next_of_the_same_size_gets_the_memory_of_one_that_was_dropped(dtype: torch.dtype) -> None:
    first = memory.empty((LARGE_BYTES + 4096,), torch.uint8)
    address = first.data_ptr()
    other = memory.empty((LARGE_BYTES + 4096,), torch.uint8)  # not while the first is in use
    assert other.data_ptr() != address
    del first
    size = (LARGE_BYTES + 4096) // dtype.itemsize
    assert memory.empty((size,), dtype).data_ptr() == address


def test_another_size_does_not_get_it() -> None:
    first = memory.empty((LARGE_BYTES + 8192,), torch.uint8)
    address = first.data_ptr()
    del first
    assert memory.empty((LARGE_BYTES + 4096,), torch.uint8).data_ptr() != address


def test_a_view_of_a_dropped_tensor_keeps_its_memory_from_the_next() -> None:
    first = memory.empty((LARGE_BYTES + 12288,), torch.uint8).fill_(1)
    view = first[-5:]
    del first
    memory.empty((LARGE_BYTES + 12288,), torch.uint8).fill_(2)
    assert view.tolist() == [1] * 5


@linux_only
def test_of_dropped_tensors_no_more_than_a_gigabyte_is_kept() -> None:
    many = [memory.empty((256 * MIB + n * 4096,), torch.uint8) for n in range(12)]
    places = [(each.data_ptr(), each.nbytes) for each in many]
    assert [mapped_bytes(*place) for place in places] == [size for _, size in places]
    many.clear()
    gc.collect()
    assert sum(size for address, size in places if mapped_bytes(address, size) == size) <= KEPT_BYTES


def test_tensors_that_many_threads_take_and_drop_share_nothing() -> None:
    def take(number: int) -> bool:
        for _ in range(50):
            got = memory.empty((LARGE_BYTES,), torch.uint8)
            got[::MIB] = number
            if got[::MIB].unique().tolist() != [number]:
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(take, range(4)))


@linux_only
def test_many_large_tensors_in_a_row_take_the_room_of_one() -> None:
    addresses = {memory.empty((256 * MIB,), torch.uint8).data_ptr() for _ in range(50)}
    gc.collect()
    assert sum(mapped_bytes(address, 256 * MIB) == 256 * MIB for address in addresses) == 1


@pytest.mark.parametrize("size", [2**50, 2**62, 2**63, 2**70], ids=hex)
def test_a_size_that_no_machine_has_is_a_memory_error(size: int) -> None:
    with pytest.raises(MemoryError, match=f"^no memory for a tensor of {4 * size} bytes: "):
        memory.empty((size,), torch.float32)


# What is freed


FAULTS_OF_MESSAGES = """
import resource, sys, torch
from transparent_llm.runtime import memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(100):
        b"x" * 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

memory.keep_freed_pages()
faults()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about the GNU C library")
def test_messages_that_come_and_go_use_the_same_memory() -> None:
    found = subprocess.run([sys.executable, "-c", FAULTS_OF_MESSAGES], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 1000  # of 25,600 pages
