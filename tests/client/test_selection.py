"""Parts of axes and smaller elements, within a block: what comes is the local value, cut and cast."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from support.servers.servers import Watcher, served, tiny
from transparent_llm import RemoteTransparentLlm, TransparentLlm, errors
from transparent_llm.selection import Selection
from transparent_llm.wire.methods import METHODS

ROWS = [[1, 2, 3, 4, 5, 6, 7], [8, 9, 10]]
KNOWN = frozenset({"pos", "batch", "d_model"})

READS: list[tuple[str, tuple[Any, ...]]] = [
    ("logits", ()),
    ("residual_in", (0,)),
    ("residual_in", (1,)),
    ("residual_after_attn", (1,)),
    ("residual_out", (0,)),
    ("residual_out", (1,)),
    ("ffn_out", (1,)),
    ("decomposed_ffn_out", (0, 1, 2)),
    ("neuron_activations", (0, 1, 2)),
    ("neuron_output", (1, 11)),
    ("attention_matrix", (1, 1, 3)),
    ("attention_output", (0, 1, 2)),
    ("attention_output", (0, 1, 2, 3)),
    ("decomposed_attn", (1, 0)),
]

PARTS: list[dict[str, slice]] = [
    {},
    {"pos": slice(-1, None)},
    {"pos": slice(1, None, 2), "batch": slice(1)},
    {"d_model": slice(-20, 60, 3)},
    {"batch": slice(1, 2), "d_model": slice(5)},
    {"d_vocab": slice(490, 900)},
    {"vocab": slice(3, 4)},
    {"hidden": slice(100, None)},
    {"d_ffn": slice(None, None, 7)},
    {"hidden": slice(3, 250, 11), "d_model": slice(8, 9)},
    {"query_pos": slice(-2, None), "key_pos": slice(None, 3)},
    {"target": slice(-1, None), "source": slice(1, 3), "head": slice(None, None, 2)},
    {"pos": slice(0, 0), "d_model": slice(9, 3)},
    {"vocab": slice(600, None)},
]


@pytest.fixture(scope="module")
def llm() -> Iterator[RemoteTransparentLlm]:
    with served() as remote:
        remote.run_tokens(ROWS)
        yield remote


@pytest.fixture(scope="module")
def local() -> TransparentLlm:
    model = tiny().copy()
    model.run_tokens(ROWS)
    return model


def has(name: str, axes: dict[str, slice]) -> bool:
    """Whether a method's value has all these axes."""
    return {"d_vocab" if axis == "vocab" else axis for axis in axes} <= set(METHODS[name].dims or ())


def part_of(value: torch.Tensor, dims: tuple[str, ...], axes: dict[str, slice]) -> torch.Tensor:
    given = {"d_vocab" if axis == "vocab" else axis: part for axis, part in axes.items()}
    return value[tuple(given.get(axis, slice(None)) for axis in dims)]


def expected(
    local: TransparentLlm, name: str, arguments: tuple[Any, ...], axes: dict[str, slice], dtype: torch.dtype | None
) -> torch.Tensor:
    """The local value, cut and cast."""
    part = part_of(getattr(local, name)(*arguments), METHODS[name].dims or (), axes)
    return part if dtype is None else part.to(dtype)


def assert_same(got: torch.Tensor, wanted: torch.Tensor, name: str) -> None:
    assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape), name
    assert torch.equal(got, wanted), name


# Asking for it


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.uint8], ids=str)
def test_a_dtype_that_is_not_floating_is_refused(dtype: torch.dtype) -> None:
    with pytest.raises(errors.InvalidRequestError, match=f"^reading takes a floating dtype, got {dtype}$") as refused:
        Selection().narrowed(dtype, {}, KNOWN)
    assert refused.value.reason == "INVALID_DTYPE"


def test_an_axis_that_no_value_has_is_refused() -> None:
    with pytest.raises(errors.InvalidRequestError) as refused:
        Selection().narrowed(None, {"pos": slice(1), "layer": slice(1)}, KNOWN)
    assert str(refused.value) == "no tensor has an axis 'layer'; the axes are batch, d_model, pos"
    assert (refused.value.reason, refused.value.metadata) == ("INVALID_SLICE", {"axis": "layer"})


@pytest.mark.parametrize("part", [3, (1, 2), "1:2", None, torch.tensor(1)], ids=str)
def test_something_else_than_a_slice_is_refused(part: Any) -> None:
    with pytest.raises(errors.InvalidRequestError) as refused:
        Selection().narrowed(None, {"pos": part}, KNOWN)
    assert str(refused.value) == f"reading takes a slice for 'pos', got {part!r}; for one index write slice(i, i + 1)"
    assert (refused.value.reason, refused.value.metadata) == ("INVALID_SLICE", {"axis": "pos"})


@pytest.mark.parametrize("step", [0, -1, -(2**40)])
def test_a_step_below_one_is_refused(step: int) -> None:
    with pytest.raises(errors.InvalidRequestError) as refused:
        Selection().narrowed(None, {"pos": slice(None, None, step)}, KNOWN)
    assert str(refused.value) == f"step {step} on axis 'pos': a step must be at least 1"
    assert (refused.value.reason, refused.value.metadata) == ("INVALID_SLICE", {"axis": "pos"})


def test_an_inner_reading_adds_axes_and_replaces_those_it_names() -> None:
    outer = Selection().narrowed(torch.float16, {"pos": slice(5), "batch": slice(1, 2)}, KNOWN)
    inner = outer.narrowed(None, {"pos": slice(-1, None), "d_model": slice(None, None, 3)}, KNOWN)
    assert inner.dtype is torch.float16
    assert inner.of(("batch", "pos", "d_model")) == {
        "pos": slice(-1, None),
        "batch": slice(1, 2),
        "d_model": slice(None, None, 3),
    }
    assert outer.of(("batch", "pos", "d_model")) == {"pos": slice(5), "batch": slice(1, 2)}
    assert inner.narrowed(torch.bfloat16, {}, KNOWN).dtype is torch.bfloat16


def test_a_reading_concerns_values_that_have_its_axes() -> None:
    reading = Selection().narrowed(None, {"pos": slice(5)}, KNOWN)
    assert reading.of(("d_model",)) == {}
    assert reading.of(()) == {}
    assert Selection().of(("batch", "pos")) == {}


def test_equal_readings_have_equal_values() -> None:
    one, other = (Selection().narrowed(torch.float16, {"pos": slice(1, 2)}, KNOWN) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)
    assert one != Selection().narrowed(torch.float16, {"pos": slice(1, 3)}, KNOWN)


def test_a_client_refuses_before_the_block_begins(llm: RemoteTransparentLlm) -> None:
    with pytest.raises(errors.InvalidRequestError, match="no tensor has an axis 'head_dim'"):
        with llm.reading(head_dim=slice(1)):
            raise AssertionError("the block has begun")
    assert llm.residual_in(0).shape == (2, 7, 64)


@pytest.mark.parametrize("axis", sorted({axis for method in METHODS.values() for axis in method.dims or ()}))
def test_every_axis_of_every_method_can_be_cut(axis: str, llm: RemoteTransparentLlm) -> None:
    named = "d_vocab" if axis == "vocab" else axis
    with llm.reading(**{axis: slice(1)}):
        if axis in ("batch", "pos", "d_model"):
            assert llm.residual_in(0).shape == tuple(
                1 if dim == axis else size for dim, size in zip(("batch", "pos", "d_model"), (2, 7, 64), strict=True)
            )
        else:
            with pytest.raises(errors.InvalidRequestError, match=f"^residual_in has no axis '{named}', which this"):
                llm.residual_in(0)


@pytest.mark.parametrize("part", [{"pos": slice(-1, None)}, {"batch": slice(1, 2)}], ids=["pos", "batch"])
def test_a_run_is_not_described_in_parts(part: dict[str, slice], llm: RemoteTransparentLlm) -> None:
    """Its positions and rows would be others."""
    with llm.reading(**part), pytest.raises(errors.InvalidRequestError, match="this reading block cuts"):
        llm.describe_run()


def test_an_axis_that_a_value_does_not_have_is_refused_not_ignored(llm: RemoteTransparentLlm) -> None:
    asked = "which this reading block cuts"
    with llm.reading(pos=slice(-1, None)):
        with pytest.raises(errors.InvalidRequestError) as refused:
            llm.attention_matrix(0, 0, 0)
        assert str(refused.value) == (
            f"attention_matrix has no axis 'pos', {asked}; its axes are query_pos, key_pos: read it outside, or in a "
            "block of its own"
        )
        assert (refused.value.reason, refused.value.metadata) == ("INVALID_SLICE", {"axis": "pos"})
        for read in (llm.fetch, llm.prefetch, llm.plan):
            with pytest.raises(errors.InvalidRequestError, match=asked):
                read(["logits", ("decomposed_attn", 0, 0)])
        with pytest.raises(errors.InvalidRequestError, match=r"^unembed has no axis 'pos'"):
            llm.unembed(torch.zeros(64), True)
        with pytest.raises(errors.InvalidRequestError, match=r"^neuron_output has no axis 'pos'"):
            llm.neuron_output(0, 0)
    with llm.reading(d_model=slice(3)):
        with pytest.raises(
            errors.InvalidRequestError, match=r"^mask has no axis 'd_model', .* its axes are batch, pos"
        ):
            llm.mask()


def test_the_vocabulary_is_one_axis_by_either_name(llm: RemoteTransparentLlm, local: TransparentLlm) -> None:
    vector = local.residual_out(1)[0, 1]
    for name in ("vocab", "d_vocab"):
        with llm.reading(**{name: slice(3, 5)}):
            assert torch.equal(llm.unembed(vector, True), local.unembed(vector, True)[3:5])
            assert torch.equal(llm.logits(), local.logits()[..., 3:5])
    with pytest.raises(errors.InvalidRequestError, match="vocab and d_vocab are two names of one axis: give it once"):
        llm.reading(vocab=slice(3), d_vocab=slice(4))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("bfloat16", "reading takes a dtype of torch, got str 'bfloat16': write dtype=torch.bfloat16"),
        ("torch.float16", "reading takes a dtype of torch, got str 'torch.float16': write dtype=torch.float16"),
        (float, "reading takes a dtype of torch, got type: write dtype=torch.bfloat16"),
    ],
)
def test_a_dtype_by_its_name_is_refused_in_words(given: Any, said: str, llm: RemoteTransparentLlm) -> None:
    with pytest.raises(errors.InvalidRequestError) as refused:
        llm.reading(dtype=given)
    assert str(refused.value) == said


def test_bounds_that_are_no_integers_are_refused(llm: RemoteTransparentLlm) -> None:
    with pytest.raises(errors.InvalidRequestError, match=r"^a slice of 'pos' has integers, got float 1\.5$"):
        llm.reading(pos=slice(1.5))  # type: ignore[misc]  # that is what is refused


# What comes


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
@pytest.mark.parametrize("axes", PARTS, ids=str)
def test_values_are_the_local_ones_cut_and_cast(
    axes: dict[str, slice], dtype: torch.dtype | None, llm: RemoteTransparentLlm, local: TransparentLlm
) -> None:
    with llm.reading(dtype=dtype, **axes):
        for name, arguments in READS:
            if has(name, axes):
                assert_same(getattr(llm, name)(*arguments), expected(local, name, arguments, axes, dtype), name)


def test_a_value_of_weights_that_are_kept_is_cut_the_same(llm: RemoteTransparentLlm, local: TransparentLlm) -> None:
    for part in (part for part in PARTS if has("decomposed_ffn_out", part)):
        for layer in (0, 1):
            with llm.copy().reading(dtype=torch.float16, **part) as before:
                wanted = expected(local, "decomposed_ffn_out", (0, layer, 3), part, torch.float16)
                assert_same(before.decomposed_ffn_out(0, layer, 3), wanted, "before")
            llm.decomposed_ffn_out(0, layer, 4)  # now they are
            with llm.copy().reading(dtype=torch.float16, **part) as after:
                assert_same(after.decomposed_ffn_out(0, layer, 3), wanted, "after")
                if has("neuron_output", part):
                    wanted = expected(local, "neuron_output", (layer, 3), part, torch.float16)
                    assert_same(after.neuron_output(layer, 3), wanted, "neuron_output")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
def test_other_floating_dtypes_come_too(dtype: torch.dtype, llm: RemoteTransparentLlm, local: TransparentLlm) -> None:
    with llm.reading(dtype=dtype):
        for name, arguments in READS:
            assert_same(getattr(llm, name)(*arguments), expected(local, name, arguments, {}, dtype), name)


@pytest.mark.parametrize("normalize", [True, False])
def test_unembed_is_cut_and_cast(normalize: bool, llm: RemoteTransparentLlm, local: TransparentLlm) -> None:
    vector = local.residual_out(1)[0, 1]
    whole = local.unembed(vector, normalize)
    with llm.reading(vocab=slice(3, 490, 7), dtype=torch.bfloat16):
        assert_same(llm.unembed(vector, normalize), whole[3:490:7].bfloat16(), "unembed")


@pytest.mark.parametrize("axes", PARTS, ids=str)
def test_fetched_values_are_cut_and_cast_too(
    axes: dict[str, slice], llm: RemoteTransparentLlm, local: TransparentLlm
) -> None:
    reads = [(name, *arguments) for name, arguments in READS if name != "neuron_output" and has(name, axes)]
    with llm.copy().reading(dtype=torch.bfloat16, **axes) as narrowed:
        for read, value in zip(reads, narrowed.fetch(reads), strict=True):
            name, *arguments = read
            assert_same(value, expected(local, name, tuple(arguments), axes, torch.bfloat16), name)


def test_fetched_tokens_are_cut_and_keep_their_dtype(llm: RemoteTransparentLlm, local: TransparentLlm) -> None:
    """A dtype is that of floating values."""
    with llm.copy().reading(pos=slice(-2, None)) as narrowed:
        assert_same(narrowed.fetch(["tokens"])[0], local.tokens()[:, -2:], "cut")
    with llm.copy().reading(dtype=torch.bfloat16) as narrowed:
        assert_same(narrowed.fetch(["tokens"])[0], local.tokens(), "cast")


def test_tokens_and_mask_are_cut_as_any_value_with_these_axes(llm: RemoteTransparentLlm, local: TransparentLlm) -> None:
    with llm.reading(pos=slice(-2, None), batch=slice(1, None)):
        assert llm.tokens().tolist() == local.tokens()[1:, -2:].tolist()
        assert llm.mask().tolist() == local.mask()[1:, -2:].tolist()


def test_the_same_code_by_another_name_is_cut_too(llm: RemoteTransparentLlm, local: TransparentLlm) -> None:
    with llm.reading(d_model=slice(3)):
        assert torch.equal(llm.attention_output_per_head(0, 1, 2, 3), local.attention_output(0, 1, 2, 3)[:3])


def test_an_index_that_is_out_of_range_is_told_as_ever(llm: RemoteTransparentLlm) -> None:
    with llm.reading(pos=slice(-1, None)):
        with pytest.raises(errors.IndexOutOfRangeError, match="layer 2 is out of range"):
            llm.residual_in(2)
    with llm.reading(hidden=slice(3)), pytest.raises(errors.IndexOutOfRangeError, match="layer 2 is out of range"):
        llm.decomposed_ffn_out(0, 2, 0)


# Blocks


def test_blocks_can_be_nested(llm: RemoteTransparentLlm, local: TransparentLlm) -> None:
    whole = local.residual_in(1)
    with llm.reading(pos=slice(3), dtype=torch.bfloat16):
        with llm.reading(d_model=slice(5)) as inner:
            assert inner is llm
            assert torch.equal(llm.residual_in(1), whole[:, :3, :5].bfloat16())
            with llm.reading(pos=slice(-1, None), dtype=torch.float64):
                assert torch.equal(llm.residual_in(1), whole[:, -1:, :5].double())
            assert torch.equal(llm.residual_in(1), whole[:, :3, :5].bfloat16())
        assert torch.equal(llm.residual_in(1), whole[:, :3].bfloat16())
    assert torch.equal(llm.residual_in(1), whole)


def test_after_an_exception_all_is_as_before(llm: RemoteTransparentLlm, local: TransparentLlm) -> None:
    with pytest.raises(KeyError, match="mine"):
        with llm.reading(pos=slice(-1, None), dtype=torch.bfloat16):
            raise KeyError("mine")
    assert torch.equal(llm.residual_in(1), local.residual_in(1))


def test_a_copy_takes_the_block_with_it_and_keeps_its_own(llm: RemoteTransparentLlm, local: TransparentLlm) -> None:
    with llm.reading(pos=slice(-1, None)):
        twin = llm.copy()
        with twin.reading(d_model=slice(5)):
            assert twin.residual_in(1).shape == (2, 1, 5)
            assert llm.residual_in(1).shape == (2, 1, 64)
    assert llm.residual_in(1).shape == (2, 7, 64)
    assert torch.equal(twin.residual_in(1), local.residual_in(1)[:, -1:])


def test_a_new_run_within_a_block_is_read_through_it(llm: RemoteTransparentLlm) -> None:
    twin, other = llm.copy(), tiny().copy()
    other.run_tokens([[30, 31, 32]])
    with twin.reading(pos=slice(-1, None)):
        assert twin.residual_in(1).shape == (2, 1, 64)
        twin.run_tokens([[30, 31, 32]])
        assert torch.equal(twin.residual_in(1), other.residual_in(1)[:, -1:])


def test_whole_and_part_are_kept_side_by_side() -> None:
    watcher = Watcher()
    with served(watcher) as llm:
        llm.run_tokens(ROWS)
        llm.prefetch(["logits"])
        for _ in range(2):
            assert llm.logits().shape == (2, 7, 500)
            with llm.reading(pos=slice(-1, None)):
                assert llm.logits().shape == (2, 1, 500)
    assert watcher.names == ["Run", "Fetch", "Logits"]


@pytest.mark.parametrize(
    ("axes", "dtype", "share"),
    [({"pos": slice(-1, None)}, None, 7), ({}, torch.bfloat16, 2), ({"d_vocab": slice(0, None, 10)}, None, 10)],
    ids=str,
)
def test_less_is_sent(axes: dict[str, slice], dtype: torch.dtype | None, share: int) -> None:
    watcher = Watcher()
    with served(watcher, chunk_bytes=1024) as llm:
        llm.run_tokens(ROWS)
        llm.logits()
        whole, watcher.messages = watcher.messages, 0
        with llm.reading(dtype=dtype, **axes):
            llm.logits()
    assert watcher.messages <= whole / share + 1


def test_each_read_of_a_fetch_can_have_parts_of_its_own(llm: RemoteTransparentLlm) -> None:
    whole = llm.residual_out(1), llm.logits()
    got = llm.fetch(
        [
            ("residual_out", 1, {"batch": slice(0, 1), "pos": slice(6, 7)}),
            ("residual_out", 1, {"batch": slice(1, 2), "pos": slice(2, 3)}),
            ("residual_out", 1),
            ("logits", {"d_vocab": slice(3, 5)}),
        ]
    )
    expected = [whole[0][:1, 6:7], whole[0][1:, 2:3], whole[0], whole[1][..., 3:5]]
    for value, reference in zip(got, expected, strict=True):
        assert torch.equal(value, reference)
    with llm.reading(d_model=slice(4), pos=slice(1, 3), dtype=torch.bfloat16):
        (value,) = llm.fetch([("residual_out", 1, {"pos": slice(5, 7)})])
    assert torch.equal(value, whole[0][:, 5:7, :4].bfloat16())
    (planned,) = llm.plan([("residual_out", 1, {"pos": slice(5, 7)})])
    assert planned.shape == (2, 2, 64)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"target": slice(1)}, "residual_out has no axis 'target', which this reading block cuts"),
        ({"nothing": slice(1)}, "no tensor has an axis 'nothing'"),
        ({"pos": 3}, "takes a slice for 'pos', got 3"),
    ],
)
def test_parts_that_a_read_cannot_have_are_refused(
    llm: RemoteTransparentLlm, parts: dict[str, Any], words: str
) -> None:
    with pytest.raises(errors.InvalidRequestError, match=words):
        llm.fetch([("residual_out", 1, parts)])
