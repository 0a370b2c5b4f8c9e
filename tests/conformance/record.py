"""Write what the files of this folder hold: literal vectors, and the numbers that scenarios expect.

    python -m conformance.record

The numbers come from plain Hugging Face (tests/support/models/reference.py), not from the server that is tested.
Scenarios are written by hand; here `tensor` is added to what each call of the demo model expects, and each step gets a
line.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from conformance import golden, scenario, vectors
from conformance.expected import Fields
from support.models.reference import HuggingFaceReference
from transparent_llm import TransparentLlm
from transparent_llm.run_input import RunInput
from transparent_llm.wire import dtypes
from transparent_llm_server.demo import DEMO_MODEL

VECTORS = {"tensors": golden.tensor_cases, "streams": golden.stream_cases, "errors": golden.error_cases}
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


def demo_reference() -> HuggingFaceReference:
    """The embedded model without TransformerLens, and without a server."""
    model = AutoModelForCausalLM.from_pretrained(DEMO_MODEL, attn_implementation="eager", trust_remote_code=False)
    return HuggingFaceReference(
        model, AutoTokenizer.from_pretrained(DEMO_MODEL, trust_remote_code=False), prepend_bos=True
    )


def written(cases: list[Fields]) -> str:
    """One case a line."""
    return "[\n" + ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases) + "\n]\n"


def _scenario_written(fields: Fields) -> str:
    head = [f"  {json.dumps(key)}: {json.dumps(value)},\n" for key, value in fields.items() if key != "steps"]
    steps = ",\n".join(f"    {json.dumps(step, ensure_ascii=False)}" for step in fields["steps"])
    return "{\n" + "".join(head) + '  "steps": [\n' + steps + "\n  ]\n}\n"


def _record(reference: TransparentLlm, steps: list[Fields]) -> None:
    ran: dict[str, RunInput] = {}
    for step in steps:
        llm, method, arguments = step.get("llm", "main"), step.get("method"), step.get("args", [])
        if step.get("runner") == "lead_to":  # to another model
            return
        if step.get("op") == "copy" and llm in ran:
            ran[step["to"]] = ran[llm]
        elif method == "run":
            ran[llm] = RunInput.of_sentences(arguments[0])
        elif method == "run_tokens":
            ran[llm] = RunInput.of_tokens(arguments[0])
        elif method == "tokens_to_strings" and "error" not in step.get("expect", {}):
            step["expect"] = {"value": reference.tokens_to_strings(torch.tensor(arguments[0], dtype=torch.int64))}
        elif method in scenario.DIMS and "error" not in step.get("expect", {}):
            if llm in ran:
                ran[llm].run_on(reference)
            step.setdefault("expect", {})["tensor"] = numbers(reference, step)


def numbers(reference: TransparentLlm, step: Fields) -> Fields:
    """What a call answers, by the reference: shape, and some of its numbers."""
    value = scenario.asked_for(reference, step)
    flat = value.flatten()
    places = (
        sorted({round(i * (flat.numel() - 1) / (MOST_NUMBERS - 1)) for i in range(MOST_NUMBERS)})
        if flat.numel()
        else []
    )
    at: dict[str, Any] = {str(place): _rounded(flat[place]) for place in places}
    dims = list(scenario.DIMS[step["method"]])
    return {"dtype": dtypes.name(value.dtype), "shape": list(value.shape), "dims": dims, "at": at}


def _rounded(number: torch.Tensor) -> Any:
    return number.item() if not number.is_floating_point() else float(f"{number.item():.5g}")


if __name__ == "__main__":
    main()
