"""Write what the files of this folder hold: literal vectors, and the numbers that scenarios expect.

    python -m conformance.record

The numbers come from plain Hugging Face (tests/support/models/reference.py), not from the server that is tested.
Scenarios are written by hand; here `tensor` is added to what each call of the demo model expects, and each step gets a
line.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from conformance import edge_reference, golden, gradient_reference, scenario, twins, vectors
from conformance.analyses import dims_of_part
from conformance.analysis_reference import AnalysisReference
from conformance.circuit_reference import CircuitReference
from conformance.edits import site_of
from conformance.expected import Fields
from conformance.feature_reference import FeatureReference
from conformance.generation_reference import greedy, prompt_ids
from support.models.reference import HuggingFaceReference
from transparent_llm import TransparentLlm
from transparent_llm.analysis.analyses import ANALYSES
from transparent_llm.analysis.circuits import CIRCUITS
from transparent_llm.analysis.differentiation import EDGE_DIMS, Path, SiteGradient
from transparent_llm.run_input import RunInput
from transparent_llm.wire import dtypes
from transparent_llm.wire.methods import METHODS
from transparent_llm_server.demo import DEMO_MODEL

VECTORS = {"tensors": golden.tensor_cases, "streams": golden.stream_cases, "errors": golden.error_cases}
WORDS = ("last", "describe_run", "to_tokens", "to_str_tokens", "to_single_token")
"""Methods about words, whose values are no tensors for a driver."""

FEATURES = ("features", "feature_activations")
MOST_NUMBERS = 12
"""Of one tensor."""


def main() -> None:
    for name, cases in VECTORS.items():
        (vectors.FOLDER / f"{name}.json").write_text(written(cases()), encoding="utf-8")
    reference = demo_reference()
    for path in sorted(scenario.FOLDER.glob("*.json")):
        fields = json.loads(path.read_text(encoding="utf-8"))
        if fields.get("server", "main") in ("main", "secure", "sleeping"):
            _record(reference, fields["steps"])
        path.write_text(_scenario_written(fields), encoding="utf-8")


@cache
def demo_model() -> PreTrainedModel:
    """The embedded model as Hugging Face loads it."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        DEMO_MODEL, attn_implementation="eager", trust_remote_code=False
    )
    return model


def demo_reference() -> HuggingFaceReference:
    """The embedded model without TransformerLens, and without a server."""
    return HuggingFaceReference(
        demo_model(), AutoTokenizer.from_pretrained(DEMO_MODEL, trust_remote_code=False), prepend_bos=True
    )


def written(cases: list[Fields]) -> str:
    """One case a line."""
    return "[\n" + ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases) + "\n]\n"


def _scenario_written(fields: Fields) -> str:
    head = [f"  {json.dumps(key)}: {json.dumps(value)},\n" for key, value in fields.items() if key != "steps"]
    steps = ",\n".join(f"    {json.dumps(step, ensure_ascii=False)}" for step in fields["steps"])
    return "{\n" + "".join(head) + '  "steps": [\n' + steps + "\n  ]\n}\n"


def _record(reference: HuggingFaceReference, steps: list[Fields]) -> None:
    ran: dict[str, RunInput] = {}
    edited = set[str]()
    for step in steps:
        llm, method, arguments = step.get("llm", "main"), step.get("method"), step.get("args", [])
        if step.get("runner") == "lead_to":  # to another model
            return
        if "error" in step.get("expect", {}):
            continue
        if method in ("run", "run_tokens", "generate"):
            (edited.add if "edits" in step or _is_drawn(step) else edited.discard)(llm)
        if llm in edited:  # whose values are compared with what the model computes
            continue
        if step.get("op") == "copy" and llm in ran:
            ran[step["to"]] = ran[llm]
        elif method == "run":
            ran[llm] = RunInput.of_sentences(arguments[0])
        elif method == "run_tokens":
            ran[llm] = RunInput.of_tokens(arguments[0])
        elif method == "generate":
            step.setdefault("expect", {})["generated"] = new = greedy(demo_model(), reference, step["generation"])
            rows = zip(prompt_ids(reference, step["generation"]["prompts"]), new, strict=True)
            ran[llm] = RunInput.of_tokens([begin + more[:-1] for begin, more in rows])
        elif method == "tokens_to_strings":
            step["expect"] = {"value": reference.tokens_to_strings(torch.tensor(arguments[0], dtype=torch.int64))}
        elif method in WORDS:
            if llm in ran:
                ran[llm].run_on(reference)
            step["expect"] = {"value": words(reference, method, arguments)}
        elif method == "compare":
            if step["other"] not in edited:
                step.setdefault("expect", {})["compared"] = compared(reference, ran[llm], ran[step["other"]], step)
        elif method == "gradients":
            if "edges" in step and "frozen" not in step:
                step.setdefault("expect", {})["parts"] = edges(reference, ran[llm], ran[step["edges"]["run"]], step)
            elif gradient_reference.has_reference(step):
                ran[llm].run_on(reference)
                step.setdefault("expect", {})["parts"] = gradients(reference, step)
        elif method in ANALYSES or method in CIRCUITS:
            if not {"slices", "dtype"} & step.keys():  # which are compared with what the model computes
                if method in ANALYSES:
                    ran[llm].run_on(reference)
                step.setdefault("expect", {})["parts"] = parts(reference, step)
        elif method in twins.DIMS:
            if llm in ran:
                ran[llm].run_on(reference)
            step.setdefault("expect", {})["tensor"] = numbers(reference, step)


def _is_drawn(step: Fields) -> bool:
    return bool(step.get("generation", {}).get("temperature"))


def numbers(reference: TransparentLlm, step: Fields) -> Fields:
    """What a call answers, by the reference: shape, and some of its numbers."""
    value = twins.asked_for(reference, {**step, "args": _from_0(reference, step)})
    places = _places(value)
    flat = value.flatten()
    if value.is_floating_point() and METHODS[step["method"]].of_run and not reference.mask().all():
        places = [place for place in places if flat[place]]  # at padding the reference has 0, and a model anything
    return _numbers(value, places, twins.dims_of(step["method"], value))


def parts(reference: HuggingFaceReference, step: Fields) -> Fields:
    """What an analysis or a read of heads answers, by its definition: of each of its tensors shape and some numbers."""
    method = step["method"]
    if method in CIRCUITS:
        found = CircuitReference(demo_model()).parts(method, step["args"])
    elif method in FEATURES:
        found = FeatureReference(reference).parts(method, step["args"])
    else:
        found = AnalysisReference(demo_model(), reference).parts(method, step["args"])
    return {
        name: _numbers(value, _places(value), dims_of_part(method, name))
        for name, value in ((name, _as_sent(value)) for name, value in found.items())
    }


def gradients(reference: HuggingFaceReference, step: Fields) -> Fields:
    """What gradients answer, by autograd."""
    sites = [SiteGradient(site_of(each["site"]), each["form"]) for each in step.get("sites", ())]
    at = site_of(step.get("path", {}).get("site", ["residual_in", 0]))
    dims = {"integrated_gradients": Path(site=at).dims, **{str(each.site): each.dims for each in sites}}
    found = gradient_reference.parts(demo_model(), _rows(reference), step)
    return {name: _numbers(value, _places(value), dims.get(name, ("batch",))) for name, value in found.items()}


def edges(reference: HuggingFaceReference, ran: RunInput, other: RunInput, step: Fields) -> Fields:
    """What edges of gradients are, by autograd."""
    both = [_rows(_run_on(reference, run_input)) for run_input in (ran, other)]
    dims = {"metric": ("batch",), **EDGE_DIMS}
    found = edge_reference.parts(demo_model(), *both, step)
    return {name: _numbers(value, _places(value), dims[name]) for name, value in found.items()}


def compared(reference: HuggingFaceReference, ran: RunInput, other: RunInput, step: Fields) -> list[Fields]:
    """Divergences and likeliest tokens of two runs, from their logits."""
    found = []
    lengths = [[len(row) for row in _rows(_run_on(reference, run_input))] for run_input in (ran, other)]
    logits = [_run_on(reference, run_input).logits().double() for run_input in (ran, other)]
    start = step.get("from_pos")
    for row, ends in enumerate(zip(*lengths, strict=True)):
        own, theirs = (of_run[row, end - 1].log_softmax(-1) for of_run, end in zip(logits, ends, strict=True))
        tokens = [int(own.argmax()), int(theirs.argmax())]
        first = ends[0] if start is None else start % min(lengths[0])
        by_pos = [
            _rounded(_divergence(*(of_run[row, pos].log_softmax(-1) for of_run in logits)))
            for pos in range(first, ends[0])
        ]
        texts = reference.tokens_to_strings(torch.tensor(tokens))
        top = {
            "top_token": tokens[0],
            "top_string": texts[0],
            "other_top_token": tokens[1],
            "other_top_string": texts[1],
        }
        found.append({"kl": _rounded(_divergence(own, theirs)), **top, "kl_by_pos": by_pos})
    return found


def _divergence(logp: torch.Tensor, logq: torch.Tensor) -> torch.Tensor:
    return (logp.exp() * (logp - logq)).sum()


def _run_on(reference: HuggingFaceReference, run_input: RunInput) -> HuggingFaceReference:
    run_input.run_on(reference)
    return reference


def _rows(reference: HuggingFaceReference) -> list[list[int]]:
    """Token ids of each row of the current run."""
    return [row[mask].tolist() for row, mask in zip(reference.tokens(), reference.mask(), strict=True)]


def _as_sent(value: torch.Tensor) -> torch.Tensor:
    return value.float() if value.is_floating_point() else value


def _places(value: torch.Tensor) -> list[int]:
    """Of elements that are compared, spread over the value; those that are NaN are not."""
    flat = value.flatten()
    places = (
        sorted({round(i * (flat.numel() - 1) / (MOST_NUMBERS - 1)) for i in range(MOST_NUMBERS)})
        if flat.numel()
        else []
    )
    return [place for place in places if not flat[place].isnan()]


def _numbers(value: torch.Tensor, places: list[int], dims: Sequence[str]) -> Fields:
    at: dict[str, Any] = {str(place): _rounded(value.flatten()[place]) for place in places}
    return {"dtype": dtypes.name(value.dtype), "shape": list(value.shape), "dims": list(dims), "at": at}


def _from_0(reference: TransparentLlm, step: Fields) -> list[Any]:
    """The arguments of a step, with layers as the reference counts them: from 0 only."""
    arguments = step.get("args", [])
    if step["method"] not in METHODS or "layer" not in METHODS[step["method"]].axes:
        return list(arguments)
    axes = METHODS[step["method"]].axes
    n_layers = reference.model_info().n_layers
    return [index % n_layers if axis == "layer" else index for axis, index in zip(axes, arguments, strict=True)]


def words(reference: TransparentLlm, method: str, arguments: list[Any]) -> Any:
    """What a method about words answers, by the reference: of its current run, or of a text that becomes it."""
    if method == "last":
        return reference.last().tolist()
    if method == "describe_run":
        return _described(reference)
    text, add_bos = [*arguments, method != "to_single_token"][:2]
    reference.run([text])  # with the beginning token before it
    ids = reference.tokens()[0]
    if not add_bos or ids[1:2].equal(ids[:1]):  # it is not wanted, or the text has its own
        ids = ids[1:]
    if method == "to_str_tokens":
        return reference.tokens_to_strings(ids)
    return ids.tolist() if method == "to_tokens" else ids.item()


def _described(reference: TransparentLlm) -> list[list[Any]]:
    rows = [row[mask] for row, mask in zip(reference.tokens(), reference.mask(), strict=True)]
    return [
        [row, pos, int(ids[pos]), text]
        for row, ids in enumerate(rows)
        for pos, text in enumerate(reference.tokens_to_strings(ids))
    ]


def _rounded(number: torch.Tensor) -> Any:
    return number.item() if not number.is_floating_point() else float(f"{number.item():.5g}")


if __name__ == "__main__":
    main()
