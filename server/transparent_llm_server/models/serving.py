"""What the server needs of a model: prepare an input, run it, read the run. No gRPC here.

`ServedTransformerLens` is the real thing; `serving_contract` serves any other implementation of the contract.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from transparent_llm.contract import TransparentLlm
from transparent_llm.description import ModelDescription
from transparent_llm.errors import NotFoundError, NotSupportedError
from transparent_llm.generation import Chat
from transparent_llm.interventions import EditEffect, Intervention
from transparent_llm.run_input import RunInput
from transparent_llm_server.models.derived.model import ModelValues
from transparent_llm_server.models.derived.run import RunValues
from transparent_llm_server.models.interventions.identity import identity
from transparent_llm_server.models.interventions.untouched import untouched
from transparent_llm_server.models.reading import Reader, ValuesReader
from transparent_llm_server.models.transformer_lens import TransformerLensTransparentLlm


@dataclass(frozen=True)
class PreparedRun:
    """An input that was checked and is ready to run."""

    run_input: RunInput
    rows: tuple[tuple[int, ...], ...] | None
    """Token ids, where they are known before the run."""

    identity: str
    """What the run is named by, besides the model and the owner."""

    digest: str
    """Of the model that is meant: one whose weights are edited meanwhile is another one."""

    edits: tuple[Intervention, ...] = ()
    """What is changed on its way."""

    unedited: str = ""
    """Of one with edits, the identity of the same input without them."""

    sources: tuple[CompletedRun, ...] = ()
    """Runs that its edits take from: they are kept alive until it is computed."""

    @property
    def n_rows(self) -> int:
        """Rows of the batch; 0 where they are not known before the run."""
        return len(self.rows or ())

    @property
    def longest(self) -> int:
        """Positions of the longest row; 0 where they are not known before the run."""
        return max(map(len, self.rows), default=0) if self.rows else 0

    @property
    def n_tokens(self) -> int:
        """Positions of the padded batch; 0 where they are not known before the run."""
        return self.n_rows * self.longest


@dataclass(frozen=True)
class CompletedRun:
    """A run that can be read."""

    read: Reader
    llm: TransparentLlm
    """An object of the class whose current run this is: what analyses read."""

    tokens: torch.Tensor
    mask: torch.Tensor | None
    nbytes: int
    nonce: str
    """Names this very computation: the same bits are promised only within it."""

    model: ServedModel
    """What it was run on, and needs to be read."""

    digest: str
    """Of the model as it was then."""

    warnings: tuple[str, ...] = ()
    """What should be known before its values are believed."""

    effects: tuple[EditEffect, ...] = ()
    """What each edit did."""

    storages: Mapping[Hashable, int] = field(default_factory=dict)
    """What its bytes are in, where two runs can share some; else empty."""

    untouched: Sequence[Collection[str]] = ()
    """Of one with edits: of the first layers, what these leave as it is without them."""


class ServedModel(ABC):
    """A model under the name that clients use."""

    shares_runs = False
    """Whether several runs can share a forward pass."""

    tokenizes_concurrently = True
    """Whether a little text or a few ids need wait for nobody, on whatever thread."""

    def __init__(self, alias: str, llm: TransparentLlm, description: ModelDescription) -> None:
        self.llm = llm
        self.read = self._reader()
        """Reads what depends on no run."""

        self.description = dataclasses.replace(description, info=dataclasses.replace(description.info, name=alias))
        """As it is known; `renew` makes it that of the model as it is now."""

    @property
    def name(self) -> str:
        """The name that clients use."""
        return self.description.info.name

    def run_id(self, prepared: PreparedRun, owner: str = "") -> str:
        """Content names the run: the same model, tokens and owner give the same id on every server."""
        return hashlib.sha256(f"{prepared.digest}/{owner}/{prepared.identity}".encode()).hexdigest()

    def unedited_run_id(self, prepared: PreparedRun, owner: str = "") -> str:
        """Of one with edits, what the run of the same input without them is named; empty of others."""
        return self.run_id(dataclasses.replace(prepared, identity=prepared.unedited), owner) if prepared.edits else ""

    def renew(self) -> None:  # noqa: B027 - most models cannot be edited by others
        """Look whether the model is still the same; if not, its description is another one from here on."""

    def may_share(self, run: PreparedRun, other: PreparedRun) -> bool:  # noqa: ARG002 - names for those who implement it
        """Whether these two gain anything by being executed together."""
        return self.shares_runs

    def chat(self, chat: Chat) -> RunInput:
        """Token ids of a conversation. Any thread but the model's.

        Raises:
            NotSupportedError: there is no template for them.
        """
        encode = getattr(self.llm, "encode_chat", None)
        if encode is None:
            raise NotSupportedError(f"{type(self.llm).__name__} has no chat template: give a prompt")
        return RunInput(token_ids=(tuple(encode(chat)),))

    @abstractmethod
    def prepare(self, run_input: RunInput) -> PreparedRun:
        """Check an input and find what names it. Any thread but the model's: tokenizers can take long."""

    def edited(
        self,
        prepared: PreparedRun,
        edits: tuple[Intervention, ...],
        run_id_of: Callable[[TransparentLlm], str],  # noqa: ARG002 - as may_share
    ) -> PreparedRun:
        """The same run, changed on its way, under another name.

        Raises:
            NotSupportedError: runs of this model cannot be edited.
        """
        if not edits:
            return prepared
        raise NotSupportedError(f"runs of {type(self.llm).__name__} cannot be edited")

    def sharing(self, run: CompletedRun, other: CompletedRun) -> CompletedRun:  # noqa: ARG002 - as may_share
        """A run of the same input as another one, of which one has edits: what these leave as it is may be held once.
        Model thread."""
        return run

    def strings(self, ids: Sequence[int]) -> list[str]:
        """The text of each token id by itself. Any thread but the model's."""
        return self.llm.tokens_to_strings(torch.tensor(ids, dtype=torch.int64))

    def padded_ids(self, prepared: PreparedRun) -> list[int] | None:  # noqa: ARG002 - as may_share
        """Token ids of the padded batch, one row after the other; None where they are not known before the run."""
        return None

    def tokenize(self, text: str, add_bos: bool | None) -> Sequence[int]:
        """Token ids of a text, as a run would have them. Any thread but the model's."""
        return [int(token) for token in self.llm.to_tokens(text, add_bos=add_bos)]

    @abstractmethod
    def execute(self, prepared: Sequence[PreparedRun]) -> list[CompletedRun]:
        """Run them, in one forward pass if the model can. Model thread."""

    @abstractmethod
    def _reader(self) -> Reader:
        """For values of the model alone."""


class ServedTransformerLens(ServedModel):
    """A `TransformerLensTransparentLlm`, read without copies."""

    llm: TransformerLensTransparentLlm
    shares_runs = True

    def __init__(self, alias: str, llm: TransformerLensTransparentLlm) -> None:
        self._known = llm.describe()
        super().__init__(alias, llm, self._known)
        self.tokenizes_concurrently = llm.tokenizes_concurrently

    def may_share(self, run: PreparedRun, other: PreparedRun) -> bool:
        """All rows in one forward pass, or they are better off apart."""
        if run.edits or other.edits:  # they have places of their own
            return False
        return self.llm.bridged.regimes.may_share([len(row) for row in (*(run.rows or ()), *(other.rows or ()))])

    def edited(
        self, prepared: PreparedRun, edits: tuple[Intervention, ...], run_id_of: Callable[[TransparentLlm], str]
    ) -> PreparedRun:
        """Named by what the edits are of these rows."""
        if not edits:
            return prepared
        lengths = [len(row) for row in prepared.rows or ()]
        named = identity(self.llm.bridged, edits, lengths, run_id_of)
        edited = f"{prepared.identity}/{named}"
        return dataclasses.replace(prepared, edits=edits, identity=edited, unedited=prepared.identity)

    def prepare(self, run_input: RunInput) -> PreparedRun:
        """Tokenize, so that text and the token ids it stands for name the same run."""
        rows: Sequence[Sequence[int]]
        if run_input.token_ids is not None:
            rows = run_input.token_ids
            self.llm.check_tokens(rows)
        else:
            rows = self.llm.encode(list(run_input.sentences or ()), run_input.add_bos)
        held = tuple(tuple(row) for row in rows)
        self.renew()
        return PreparedRun(run_input, held, json.dumps(held), self.description.digest)

    def renew(self) -> None:
        """A model whose weights were edited has another digest."""
        known = self.llm.describe()
        if known is not self._known:
            self._known, conventions = known, known.conventions
            self.description = dataclasses.replace(self.description, digest=known.digest, conventions=conventions)

    def padded_ids(self, prepared: PreparedRun) -> list[int]:
        """As the forward pass will have them."""
        ids: list[int] = self.llm.prepare(prepared.rows or ()).tokens.flatten().tolist()
        return ids

    def tokenize(self, text: str, add_bos: bool | None) -> Sequence[int]:
        """From the tokenizer."""
        return self.llm.encode([text], add_bos)[0]

    def strings(self, ids: Sequence[int]) -> list[str]:
        """From the tokenizer, once for each id."""
        return self.llm.strings(ids)

    def execute(self, prepared: Sequence[PreparedRun]) -> list[CompletedRun]:
        """In as few forward passes as they need."""
        batches = [self.llm.prepare(run.rows or ()) for run in prepared]
        if len(prepared) == 1 and prepared[0].edits:
            edits = prepared[0].edits
            edited = self._completed(self.llm.run_edited(batches[0], edits))
            completed = [dataclasses.replace(edited, untouched=untouched(self.llm.bridged, edits))]
        else:
            completed = [self._completed(each) for each in self.llm.run_batches(batches)]
        self.renew()
        if any(run.digest != self.description.digest for run in prepared):
            raise NotFoundError(
                "the model's weights were changed after this run was requested; request it again",
                reason="MODEL_CHANGED",
            )
        return completed

    def sharing(self, run: CompletedRun, other: CompletedRun) -> CompletedRun:
        """What is computed before the first of the edits has the same bits; where it has, the other's tensors stay."""
        values, others = _values_of(run), _values_of(other)
        if values is None or others is None or run.digest != other.digest:
            return run
        capture = values.capture.sharing(others.capture, run.untouched or other.untouched)
        shared = RunValues(self.llm.bridged, capture, values.effects)
        read, llm = ValuesReader(shared, reads_are_quick=self._reads_are_quick), self.llm.reading_run(shared)
        return dataclasses.replace(run, read=read, llm=llm, nbytes=capture.nbytes, storages=capture.storages)

    def _completed(self, values: RunValues) -> CompletedRun:
        return CompletedRun(
            read=ValuesReader(values, reads_are_quick=self._reads_are_quick),
            llm=self.llm.reading_run(values),
            tokens=values.tokens().tensor(),
            mask=values.mask().tensor(),
            nbytes=values.nbytes,
            nonce=uuid.uuid4().hex,
            model=self,
            digest=self.description.digest,
            warnings=self.llm.warnings_of(values),
            effects=values.effects,
            storages=values.capture.storages,
        )

    def _reader(self) -> Reader:
        return ValuesReader(ModelValues(self.llm.bridged), reads_are_quick=self._reads_are_quick)

    @property
    def _reads_are_quick(self) -> bool:
        """Weights that must be materialized are read by the model thread, which then waits for nobody who does so."""
        return not self.llm.bridged.materializes


def _values_of(run: CompletedRun) -> RunValues | None:
    return run.llm.values() if isinstance(run.llm, TransformerLensTransparentLlm) else None
