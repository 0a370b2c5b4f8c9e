"""Edits over the wire: the bits of the local object, names of runs, what is lost and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support.models.given import ContractOnly
from support.servers.engines import SOON
from support.servers.owners import BearerTokenFile
from support.servers.servers import Watcher, running, tiny
from support.servers.stub import stub
from transparent_llm import RemoteTransparentLlm, TransparentLlm
from transparent_llm.errors import InvalidRequestError, NotFoundError, NotSupportedError, TooLargeError
from transparent_llm.interventions import (
    Intervention,
    add,
    attn_out,
    clamp,
    ffn_out,
    final_norm_scale,
    freeze,
    head,
    key,
    mean,
    neuron_output,
    neurons,
    noise,
    norm_scale,
    patch,
    pattern,
    project,
    query,
    residual_after_attn,
    residual_in,
    residual_out,
    scale,
    set_to,
    swap,
    unembedding,
    value,
    value_of,
    zero,
)
from transparent_llm.wire import status
from transparent_llm.wire._gen import interventions_pb2 as pb
from transparent_llm.wire._gen import service_pb2
from transparent_llm_server.app import Server

ROWS, OTHER = [[1, 2, 3, 4, 5, 6, 7], [9, 8, 7]], [[11, 12, 13, 14, 15, 16, 17], [19, 18, 17]]
V = torch.linspace(-1.5, 2, 64).sin()
W = torch.linspace(0, 3, 64).cos()

EVERY: list[Callable[[Any], Intervention]] = [
    lambda _: zero(head(1, 2)),
    lambda _: scale(residual_after_attn(0), -0.5, positions=[0, -1], rows=[1]),
    lambda _: add(residual_in(0), V, 2.0, positions="last"),
    lambda _: add(residual_in(1), unembedding(5, 6), 0.5, positions="all", relative=True),
    lambda _: add(residual_out(-1), neuron_output(1, 7), 3.0, positions=[0]),
    lambda other: add(ffn_out(0), value_of(ffn_out(1), other, row=1, pos=-1), positions=[1]),
    lambda _: set_to(attn_out(1), torch.stack([V, W]), positions=[1], rows=[0, 1]),
    lambda other: mean(residual_in(1), other, rows=[0]),
    lambda other: patch(pattern(0, 1), other, positions=[2]),
    lambda other: patch(residual_in(1), other, positions=[0, 1], rows=[1], source_positions=[-1, 0], source_rows=[0]),
    lambda _: project(residual_in(1), V.double(), positions=[1]),
    lambda _: clamp(residual_in(1), V, 30.0, float("inf"), positions=[1]),
    lambda _: swap(residual_in(1), V, W, positions=[1]),
    lambda _: noise(neurons(0, [3, 5]), 0.5, -7, positions=[1]),
    lambda _: add(query(1, 2), V[:16], 2.0, positions=[1]),
    lambda other: patch(key(0), other, positions=[1, 2]),
    lambda other: freeze(query(1), other),
    lambda other: mean(value(1, 2), other, positions="last"),
    lambda other: add(key(1, 1), value_of(query(0, 1), other, row=1, pos=-1), 0.5, positions=[0]),
    lambda other: freeze(norm_scale(0, "ffn"), other),
    lambda other: freeze(final_norm_scale(), other),
    lambda other: patch(pattern(1), other, rows=[1]),
    lambda other: mean(head(0), other, positions="last"),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as found:
        yield found


@pytest.fixture
def both(server: Server) -> Iterator[tuple[RemoteTransparentLlm, RemoteTransparentLlm]]:
    with RemoteTransparentLlm(server.address) as llm:
        other = llm.copy()
        other.run_tokens(OTHER)
        yield llm, other


def local() -> TransparentLlm:
    other = tiny().copy()
    other.run_tokens(OTHER)
    return other


def values(llm: Any, *, parts: bool = False) -> list[torch.Tensor]:
    found = [llm.decomposed_attn(0, 1), llm.decomposed_attn(1, 1)] if parts else []
    found += [llm.logits(), llm.attention_output(0, 1, 2, 2), llm.attention_matrix(0, 0, 1)]
    return [
        *found,
        *(read(layer) for layer in (0, 1) for read in (llm.residual_in, llm.residual_after_attn, llm.ffn_out)),
    ]


@pytest.mark.parametrize("make", EVERY)
def test_each_edit_gives_the_bits_and_the_report_of_the_local_object(
    make: Callable[[Any], Intervention], both: tuple[RemoteTransparentLlm, RemoteTransparentLlm]
) -> None:
    llm, other = both
    twin, here = tiny().copy(), local()
    llm.run_tokens(ROWS, edits=[make(other)])
    twin.run_tokens(ROWS, edits=[make(here)])
    assert all(map(torch.equal, values(llm), values(twin)))
    assert llm.effects() == twin.effects()
    assert llm.effects()[0].changed > 0


def test_parts_of_scaled_heads_have_the_bits_of_the_local_object(server: Server) -> None:
    twin = tiny().copy()
    with RemoteTransparentLlm(server.address) as llm:
        for one in (llm, twin):
            one.run_tokens(ROWS, edits=[scale(head(1, 2), 0.3), zero(head(1, 0), rows=[1])])
        assert all(map(torch.equal, values(llm, parts=True), values(twin, parts=True)))


@settings(max_examples=25, deadline=None)
@given(chosen=st.lists(st.integers(0, len(EVERY) - 1), min_size=1, max_size=6))
def test_any_list_of_them_does(server: Server, chosen: list[int]) -> None:
    with RemoteTransparentLlm(server.address) as llm:
        other, twin, here = llm.copy(), tiny().copy(), local()
        other.run_tokens(OTHER)
        llm.run_tokens(ROWS, edits=[EVERY[n](other) for n in chosen])
        twin.run_tokens(ROWS, edits=[EVERY[n](here) for n in chosen])
        assert torch.equal(llm.logits(), twin.logits())
        assert llm.effects() == twin.effects()


def test_the_name_of_a_run_covers_what_edits_mean(both: tuple[RemoteTransparentLlm, RemoteTransparentLlm]) -> None:
    llm, other = both

    def named(*edits: Intervention) -> str:
        llm.run_tokens(ROWS, edits=list(edits))
        return llm.run_id()

    plain = named()
    with RemoteTransparentLlm(llm._config.target) as fresh:
        fresh.run_tokens(ROWS)
        assert fresh.run_id() == plain  # no edits: the name that it always had
    same = [
        named(zero(residual_out(0), positions=[2, 6], rows=[0])),
        named(zero(residual_in(1), positions=[2, -1], rows=[0])),
        named(scale(residual_in(-1), 0.0, positions=[2, 6], rows=[-2])),
    ]
    assert len(set(same)) == 1
    others = [
        *same[:1],
        plain,
        named(zero(residual_in(1), positions=[6, 2], rows=[0])),
        named(zero(residual_in(1), positions=[2], rows=[0])),
        named(scale(residual_in(1), 1.0, positions=[2, 6], rows=[0])),
        named(add(residual_in(1), V, positions=[2])),
        named(add(residual_in(1), V + 1e-6, positions=[2])),
        named(add(residual_in(1), V, 1.5, positions=[2])),
        named(patch(residual_in(1), other, positions=[2])),
        named(noise(residual_in(1), 1.0, 1, positions=[2])),
        named(noise(residual_in(1), 1.0, 2, positions=[2])),
    ]
    assert len(set(others)) == len(others)
    changed = llm.copy()
    changed.run_tokens(OTHER, edits=[zero(head(0, 0))])
    assert named(patch(residual_in(1), changed, positions=[2])) not in others


def test_neurons_of_experts_have_the_bits_of_the_local_object() -> None:
    twin = tiny("mixtral").copy()
    with running(serving={"experts": tiny("mixtral")}) as server, RemoteTransparentLlm(server.address) as llm:
        for one in (llm, twin):
            source = one.copy()
            source.run_tokens(OTHER)
            edits = [scale(neurons(0, [3, 200]), 3.0), patch(neurons(1), source, positions=[2]), freeze(pattern(1))]
            one.run_tokens(ROWS, edits=edits)
        assert all(map(torch.equal, values(llm, parts=True), values(twin, parts=True)))
        for pos in (1, 2):
            for read in ("decomposed_ffn_out", "neuron_activations"):
                assert torch.equal(getattr(llm, read)(0, 1, pos), getattr(twin, read)(0, 1, pos))
        assert llm.effects() == twin.effects()


def test_sources_that_the_server_lost_are_run_again_the_first_ones_first() -> None:
    watcher = Watcher()
    with running(watcher) as other_server, RemoteTransparentLlm(other_server.address) as llm:
        first, second = llm.copy(), llm.copy()
        first.run_tokens(OTHER)
        second.run_tokens(OTHER, edits=[patch(residual_in(1), first, positions=[0]), zero(head(0, 1))])
        llm.run_tokens(ROWS, edits=[patch(residual_in(1), second, positions=[2])])
        wanted, name = llm.logits(), llm.run_id()
        for each in (first, second, llm):
            each.release()
        watcher.calls.clear()
        again = llm.copy()
        again.run_tokens(ROWS, edits=[patch(residual_in(1), second, positions=[2])])
        assert again.run_id() == name
        assert torch.equal(again.logits(), wanted)
        assert watcher.names[:5] == ["Run"] * 5  # without second; second without first; first; second; this one
        for each in (first, second, llm):
            each.release()
        assert torch.equal(llm.residual_in(1)[0, 2], second.residual_in(1)[0, 2])


def test_what_the_same_input_has_without_edits_is_run_for_it_and_again_where_it_is_lost() -> None:
    watcher = Watcher()
    with running(watcher) as other_server, RemoteTransparentLlm(other_server.address) as llm:
        edits = [zero(head(0, 1)), freeze(pattern(1)), freeze(norm_scale(1, "attn")), freeze(final_norm_scale())]
        llm.run_tokens(ROWS, edits=edits)
        twin = tiny().copy()
        twin.run_tokens(ROWS, edits=edits)
        assert torch.equal(llm.logits(), twin.logits())
        assert llm.effects() == twin.effects()
        assert watcher.names.count("Run") == 2  # without edits, and then with them
        name, base = llm.run_id(), llm.copy()
        base.run_tokens(ROWS)
        explicit = llm.copy()
        explicit.run_tokens(ROWS, edits=[edits[0], *(freeze(edit.site, base) for edit in edits[1:])])
        assert explicit.run_id() == name
        base.release()
        llm.release()
        assert torch.equal(llm.residual_out(1), twin.residual_out(1))
        assert llm.run_id() == name
        attributed = (one.attribution(7, pos=3) for one in (llm, twin))
        assert torch.equal(*(one["heads"] for one in attributed))
        lenses = [one.logit_lens(normalize="frozen", with_kl=True) for one in (llm, twin)]
        assert torch.equal(lenses[0].logits, lenses[1].logits)
        assert lenses[0].kl is not None
        assert lenses[1].kl is not None
        assert torch.equal(lenses[0].kl, lenses[1].kl)


def test_without_rerun_a_lost_source_is_an_error(server: Server) -> None:
    with RemoteTransparentLlm(server.address, rerun=False) as llm:
        other = llm.copy()
        other.run_tokens([[30, 31, 32]])
        other.release()
        with pytest.raises(NotFoundError, match="was not found") as caught:
            llm.run_tokens([[1, 2, 3]], edits=[patch(residual_in(1), other)])
        assert caught.value.metadata["run_id"] == other.run_id()


def test_nobody_takes_from_a_run_of_somebody_else(tmp_path: Path) -> None:
    tokens = BearerTokenFile(tmp_path / "tokens", "alice", "bob")
    with running(tokens_file=tokens.path) as server:
        alice, bob = (
            RemoteTransparentLlm(server.address, token=tokens.bearer_tokens[name]) for name in ("alice", "bob")
        )
        with alice, bob:
            alice.run_tokens(OTHER)
            with pytest.raises(NotFoundError, match="was not found") as caught:
                bob.run_tokens(ROWS, edits=[patch(residual_in(1), alice)])
            assert caught.value.metadata["run_id"] == alice.run_id()


def test_a_source_of_this_process_is_no_source_there(server: Server) -> None:
    with RemoteTransparentLlm(server.address) as llm:
        with pytest.raises(InvalidRequestError, match="an object of the same server with a current run"):
            llm.run_tokens(ROWS, edits=[patch(residual_in(0), local())])


def test_other_implementations_say_that_they_cannot() -> None:
    with running(serving={"given": ContractOnly(tiny().copy())}) as server, RemoteTransparentLlm(server.address) as llm:
        with pytest.raises(NotSupportedError, match="runs of ContractOnly cannot be edited"):
            llm.run(["a"], edits=[zero(head(0, 1))])


def intervention(**fields: Any) -> pb.Intervention:
    whole: dict[str, Any] = {
        "site": pb.Site(kind=pb.SITE_KIND_RESIDUAL_IN, layer=0),
        "all_positions": True,
        "all_rows": True,
        "scale": pb.ScaleEdit(factor=2.0),
    }
    return pb.Intervention(**{name: value for name, value in {**whole, **fields}.items() if value is not None})


def _unknown() -> pb.Intervention:
    message = intervention()
    message.site.MergeFromString(b"\xf8\x07\x01")  # a field of a later schema
    return message


def _deep() -> pb.Intervention:
    vector = pb.Vector(unembedding=1)
    for _ in range(20):
        vector = pb.Vector(difference=pb.VectorDifference(minuend=vector, subtrahend=pb.Vector(unembedding=2)))
    return intervention(scale=None, add=pb.AddEdit(vector=vector, factor=1.0))


REFUSED = [
    (intervention(site=None), "the site of an edit is absent"),
    (intervention(site=pb.Site(kind=99, layer=0)), "of a kind that this server does not know"),  # type: ignore[arg-type]
    (intervention(all_positions=None), "says nothing of positions: nothing is edited everywhere unasked"),
    (intervention(all_rows=None), "says nothing of rows"),
    (intervention(scale=None), "has no operation that this server knows"),
    (intervention(site=pb.Site(kind=pb.SITE_KIND_HEAD, layer=0)), "a site of kind head has a head"),
    (intervention(site=pb.Site(kind=pb.SITE_KIND_FFN_OUT, layer=0, head=1)), "a site of kind ffn_out has no head"),
    (intervention(site=pb.Site(kind=pb.SITE_KIND_HEAD, head=1, all_heads=True)), "a site of kind head has a head, or"),
    (intervention(site=pb.Site(kind=pb.SITE_KIND_NEURONS, all_heads=True)), "a site of kind neurons has no head"),
    (intervention(site=pb.Site(kind=pb.SITE_KIND_FFN_OUT, neurons=[1])), "a site of kind ffn_out has no neurons"),
    (intervention(site=pb.Site(kind=pb.SITE_KIND_FINAL_NORM_SCALE, layer=1)), "final_norm_scale has no layer"),
    (intervention(site=pb.Site(kind=pb.SITE_KIND_FINAL_NORM_SCALE)), r"final_norm_scale\(\) can be frozen and nothing"),
    (intervention(scale=pb.ScaleEdit(factor=float("nan"))), "factor must be a finite number, got float nan"),
    (intervention(all_positions=None, chosen_positions=pb.Indices()), "positions is empty"),
    (intervention(scale=None, add=pb.AddEdit(factor=1.0)), "a vector of an edit is absent"),
    (_deep(), "too many differences deep"),
    (_unknown(), "has a field that this server does not know, in Site"),
    (intervention(scale=None, clamp=pb.ClampEdit(vector=pb.Vector(unembedding=1), least=2, most=1)), "clamp between 2"),
]


@pytest.mark.parametrize(("message", "words"), REFUSED)
def test_what_is_not_whole_is_refused(message: pb.Intervention, words: str, server: Server) -> None:
    with pytest.raises(InvalidRequestError, match=words):
        asked(server, [message])


def test_what_is_frozen_is_so_everywhere(both: tuple[RemoteTransparentLlm, RemoteTransparentLlm]) -> None:
    llm, other = both
    frozen = pb.FreezeEdit(run_id=other.run_id())
    message = intervention(scale=None, freeze=frozen, all_rows=None, chosen_rows=pb.Indices(indices=[0]))
    with grpc.insecure_channel(llm._config.target) as channel:
        request = service_pb2.RunRequest(edits=[message])
        request.tokens.sequences.add(token_ids=[1, 2, 3])
        with pytest.raises(grpc.RpcError, match="needs all_positions and all_rows"):
            stub(channel).Run(request, timeout=SOON)


def test_too_many_edits_are_refused_with_the_numbers(server: Server) -> None:
    with pytest.raises(TooLargeError, match="513 edits of one run, at most 512 can be made"):
        asked(server, [intervention()] * 513)


def asked(server: Server, edits: list[pb.Intervention]) -> None:
    request = service_pb2.RunRequest(edits=edits)
    request.tokens.sequences.add(token_ids=[1, 2, 3])
    with grpc.insecure_channel(server.address) as channel:
        try:
            stub(channel).Run(request, timeout=SOON)
        except grpc.RpcError as error:
            raise status.from_rpc_error(error, server.address) from None
