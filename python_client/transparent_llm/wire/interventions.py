"""Edits of a run on the wire."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from google.protobuf.message import Message
from google.protobuf.unknown_fields import UnknownFieldSet

from transparent_llm import interventions as made
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import IndexOutOfRangeError, InvalidRequestError, TooLargeError
from transparent_llm.interventions import EditEffect, Intervention, Site, Vector
from transparent_llm.interventions import operation as ops
from transparent_llm.interventions import vector as vectors
from transparent_llm.interventions.kept import KeptVector
from transparent_llm.wire import sites, tensors
from transparent_llm.wire._gen import interventions_pb2 as pb
from transparent_llm.wire.protocol_error import ProtocolError

MOST_EDITS = 512
"""Of one run: as many as it takes to freeze all patterns, norms and feed-forward parts of the deepest models."""

_DEEPEST = 8
"""Differences within differences."""


Named = Callable[[TransparentLlm], str]
"""The run id of an object's current run."""


class Sources(Protocol):
    """What is known of what edits take from."""

    def run_of(self, run_id: str) -> TransparentLlm:
        """An object whose current run has this id."""

    def vector_of(self, digest: str) -> Vector:
        """A kept vector with this digest."""


def to_wire(edits: Sequence[Intervention], run_id_of: Named) -> list[pb.Intervention]:
    """Messages of edits.

    Raises:
        TooLargeError: too many of them.
        InvalidRequestError: a vector of a type that does not travel.
    """
    require_few(len(edits))
    return [_edit_to_wire(edit, run_id_of) for edit in edits]


def require_few(count: int) -> None:
    """Refuse too many edits of one run.

    Raises:
        TooLargeError: with the numbers.
    """
    if count > MOST_EDITS:
        raise TooLargeError(
            f"{count} edits of one run, at most {MOST_EDITS} can be made",
            reason="TOO_LONG",
            metadata={"needed": str(count), "allowed": str(MOST_EDITS)},
        )


def from_wire(messages: Sequence[pb.Intervention], sources: Sources) -> tuple[Intervention, ...]:
    """Edits out of a request; `sources` says what is known of what they take from.

    Raises:
        InvalidRequestError: something is absent, unknown or makes no sense.
        NotFoundError: a run or vector that is not there.
    """
    require_few(len(messages))
    return tuple(_edit_from_wire(message, sources) for message in messages)


def effects_to_wire(effects: Sequence[EditEffect]) -> list[pb.EditEffect]:
    """What edits did, as messages."""
    return [
        pb.EditEffect(
            edit=effect.edit,
            selected=effect.selected,
            changed=effect.changed,
            delta_norm=effect.delta_norm,
            norm=effect.norm,
            max_delta=effect.max_delta,
        )
        for effect in effects
    ]


def effects_from_wire(messages: Sequence[pb.EditEffect], edits: Sequence[Intervention]) -> tuple[EditEffect, ...]:
    """What these edits did. Their words are the caller's: the server has those of whoever ran the same first.

    Raises:
        ProtocolError: there are more or fewer.
    """
    if len(messages) != len(edits):
        raise ProtocolError(f"effects of {len(messages)} edits for {len(edits)} that were sent")
    return tuple(
        EditEffect(str(edit), m.selected, m.changed, m.delta_norm, m.norm, m.max_delta)
        for edit, m in zip(edits, messages, strict=True)
    )


def _edit_to_wire(edit: Intervention, run_id_of: Named) -> pb.Intervention:
    message = pb.Intervention(site=sites.site_to_wire(edit.site))
    if edit.positions == "all":
        message.all_positions = True
    elif edit.positions == "last":
        message.last_position = True
    else:
        message.chosen_positions.indices.extend(edit.positions)
    if edit.rows == "all":
        message.all_rows = True
    else:
        message.chosen_rows.indices.extend(edit.rows)
    _operation_to_wire(message, edit.operation, run_id_of)
    return message


def _operation_to_wire(message: pb.Intervention, operation: ops.Operation, run_id_of: Named) -> None:
    def sent(vector: Vector) -> pb.Vector:
        return vector_to_wire(vector, run_id_of)

    if isinstance(operation, ops.Scale):
        message.scale.CopyFrom(pb.ScaleEdit(factor=operation.factor))
    elif isinstance(operation, ops.Add):
        message.add.CopyFrom(
            pb.AddEdit(vector=sent(operation.vector), factor=operation.factor, relative=operation.relative)
        )
    elif isinstance(operation, ops.SetTo):
        message.set.CopyFrom(pb.SetEdit(vector=sent(operation.vector)))
    elif isinstance(operation, ops.Mean):
        message.mean.CopyFrom(pb.MeanEdit(run_id=run_id_of(operation.source)))
    elif isinstance(operation, ops.Patch):
        message.patch.CopyFrom(_patch_to_wire(operation, run_id_of))
    elif isinstance(operation, ops.Freeze):
        assert operation.source is not None  # by now it is known
        message.freeze.CopyFrom(pb.FreezeEdit(run_id=run_id_of(operation.source)))
    elif isinstance(operation, ops.Project):
        message.project.CopyFrom(pb.ProjectEdit(vector=sent(operation.vector), factor=operation.factor))
    elif isinstance(operation, ops.Clamp):
        message.clamp.CopyFrom(pb.ClampEdit(vector=sent(operation.vector), least=operation.least, most=operation.most))
    elif isinstance(operation, ops.ClampFeature):
        message.clamp_feature.CopyFrom(_clamp_feature_to_wire(operation))
    elif isinstance(operation, ops.Swap):
        message.swap.CopyFrom(pb.SwapEdit(origin=sent(operation.origin), target=sent(operation.target)))
    else:
        assert isinstance(operation, ops.Noise)
        message.noise.CopyFrom(pb.NoiseEdit(sd=operation.sd, seed=operation.seed))


def _clamp_feature_to_wire(operation: ops.ClampFeature) -> pb.ClampFeatureEdit:
    of, index = operation.feature, _int32(operation.feature.feature)
    return pb.ClampFeatureEdit(sae=of.sae, feature=index, least=operation.least, most=operation.most)


def _patch_to_wire(operation: ops.Patch, run_id_of: Named) -> pb.PatchEdit:
    message = pb.PatchEdit(run_id=run_id_of(operation.source))
    if operation.rows is not None:
        message.source_rows.indices.extend(operation.rows)
    if operation.positions is not None:
        message.source_positions.indices.extend(operation.positions)
    return message


def vector_to_wire(vector: Vector, run_id_of: Named) -> pb.Vector:
    """A vector as a message.

    Raises:
        InvalidRequestError: its type does not travel.
    """
    if isinstance(vector, KeptVector):
        return pb.Vector(kept=vector.digest)
    if isinstance(vector, vectors.Literal):
        return pb.Vector(literal=tensors.encode(vector.values))
    if isinstance(vector, vectors.ValueOf):
        return pb.Vector(
            value=pb.RunValue(
                run_id=run_id_of(vector.source), site=sites.site_to_wire(vector.site), row=vector.row, pos=vector.pos
            )
        )
    if isinstance(vector, vectors.Difference):
        parts = (vector_to_wire(part, run_id_of) for part in (vector.minuend, vector.subtrahend))
        return pb.Vector(difference=pb.VectorDifference(minuend=next(parts), subtrahend=next(parts)))
    if isinstance(vector, vectors.Unembedding):
        return pb.Vector(unembedding=vector.token)
    if isinstance(vector, vectors.SaeFeature):
        return _feature_to_wire(vector)
    assert isinstance(vector, vectors.NeuronOutput)
    return pb.Vector(neuron_output=pb.NeuronVector(layer=vector.layer, neuron=vector.neuron))


def _feature_to_wire(vector: vectors.SaeFeature) -> pb.Vector:
    sent = pb.SaeFeatureVector(sae=vector.sae, feature=_int32(vector.feature))
    sent.direction = vectors.DIRECTIONS.index(vector.direction) + 1  # type: ignore[assignment]  # an enum's number
    return pb.Vector(sae_feature=sent)


def _int32(feature: int) -> int:
    if not -(2**31) <= feature < 2**31:
        raise IndexOutOfRangeError(f"feature {feature} is out of range: none has so many")
    return feature


def _feature_from_wire(message: pb.SaeFeatureVector) -> Vector:
    directions = dict(enumerate(vectors.DIRECTIONS, 1))
    if message.direction not in directions:
        raise InvalidRequestError(f"direction {message.direction} of a feature is absent, or not known here")
    return made.sae_feature(message.sae, message.feature, directions[message.direction])


def _edit_from_wire(message: pb.Intervention, sources: Sources) -> Intervention:
    require_known(message)
    site = sites.site_from_wire(message.site)
    positions: object = {"all_positions": "all", "last_position": "last"}.get(message.WhichOneof("positions") or "")
    if message.HasField("chosen_positions"):
        positions = tuple(message.chosen_positions.indices)
    rows: object = tuple(message.chosen_rows.indices) if message.HasField("chosen_rows") else None
    rows = "all" if message.HasField("all_rows") else rows
    for name, given in (("positions", positions), ("rows", rows)):
        if given is None:
            raise InvalidRequestError(f"an edit of {site} says nothing of {name}: nothing is edited everywhere unasked")
    where = {"positions": positions, "rows": rows}
    which = message.WhichOneof("operation")
    if which is None:
        raise InvalidRequestError(f"an edit of {site} has no operation that this server knows")
    return _OPERATIONS[which](site, getattr(message, which), sources, where)


def vector_from_wire(message: pb.Vector, sources: Sources, depth: int = 0) -> Vector:
    """A vector out of a request.

    Raises:
        InvalidRequestError: it is absent, or makes no sense.
        NotFoundError: a run or vector that is not there.
    """
    source = message.WhichOneof("source")
    if source is None or depth > _DEEPEST:
        raise InvalidRequestError("a vector of an edit is absent, or too many differences deep")
    if source == "literal":
        return made.literal(tensors.decode(message.literal))
    if source == "value":
        value = message.value
        return made.value_of(
            sites.site_from_wire(value.site), sources.run_of(value.run_id), row=value.row, pos=value.pos
        )
    if source == "difference":
        both = message.difference
        one, other = (vector_from_wire(part, sources, depth + 1) for part in (both.minuend, both.subtrahend))
        return one - other
    if source == "kept":
        return sources.vector_of(message.kept)
    if source == "sae_feature":
        return _feature_from_wire(message.sae_feature)
    if source == "unembedding":
        return made.unembedding(message.unembedding)
    return made.neuron_output(message.neuron_output.layer, message.neuron_output.neuron)


def _frozen(site: Site, source: TransparentLlm, where: dict[str, object]) -> Intervention:
    if where != {"positions": "all", "rows": "all"}:
        raise InvalidRequestError(f"{site} is frozen at all positions of all rows: it needs all_positions and all_rows")
    return made.freeze(site, source)


_OPERATIONS: dict[str, Callable[..., Intervention]] = {
    "scale": lambda site, m, _, where: made.scale(site, m.factor, **where),
    "add": lambda site, m, sources, where: made.add(
        site, vector_from_wire(m.vector, sources), m.factor, relative=m.relative, **where
    ),
    "set": lambda site, m, sources, where: made.set_to(site, vector_from_wire(m.vector, sources), **where),
    "mean": lambda site, m, sources, where: made.mean(site, sources.run_of(m.run_id), **where),
    "patch": lambda site, m, sources, where: made.patch(
        site,
        sources.run_of(m.run_id),
        source_rows=m.source_rows.indices if m.HasField("source_rows") else None,
        source_positions=m.source_positions.indices if m.HasField("source_positions") else None,
        **where,
    ),
    "freeze": lambda site, m, sources, where: _frozen(site, sources.run_of(m.run_id), where),
    "project": lambda site, m, sources, where: made.project(
        site, vector_from_wire(m.vector, sources), m.factor, **where
    ),
    "clamp": lambda site, m, sources, where: made.clamp(
        site, vector_from_wire(m.vector, sources), m.least, m.most, **where
    ),
    "clamp_feature": lambda site, m, _, where: made.clamp_feature(site, m.sae, m.feature, m.least, m.most, **where),
    "swap": lambda site, m, sources, where: made.swap(
        site, vector_from_wire(m.origin, sources), vector_from_wire(m.target, sources), **where
    ),
    "noise": lambda site, m, _, where: made.noise(site, m.sd, m.seed, **where),
}
"""Field of an `Intervention` -> the edit that it is."""


def require_known(message: Message) -> None:
    """Refuse fields that a newer schema has: without them it would ask for something else."""
    if len(UnknownFieldSet(message)):
        raise InvalidRequestError(f"an edit has a field that this server does not know, in {message.DESCRIPTOR.name}")
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else [value]:
                require_known(part)
