"""The notebooks of examples/, executed from their first cell to their last: nothing fails, what they find is right."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.notebooks import execute, require_jupyter, stream, traceback
from transparent_llm.demo import server_process

EXAMPLES = Path(__file__).parents[2] / "examples"
FACTS = {
    "first_look": "shapes=[list(stream.shape), list(patterns.shape), list(lens.probs.shape)], best=best.strings[0], "
    "lens=lens.strings[-1][-1][0], likeliest=llm.tokens_to_strings(llm.logits()[0, -1:].argmax(-1))[0], "
    "probability=float(best.probs[0]), expected=float(llm.logits()[0, -1].softmax(-1).max()), "
    "surprise=surprise.tolist(), "
    "nats=torch.nn.functional.cross_entropy(llm.logits()[0, :-1], llm.tokens()[0, 1:], reduction='none').tolist()",
    "ioi": "difference=difference, total=float(total), layers=terms.layers.tolist(), parts=grid.sum(dim=1).tolist(), "
    "head=float(heads[layer, head]), most=float(heads.max()), sources=float(sources[head].sum())",
    "induction": "best=[layer, head], score=float(scores[layer, head]), first=first, second=second, "
    "direct=float(pattern[len(begin) + length :, len(begin) + 1 :].diagonal()[: length].mean()), "
    "previous=divmod(int(previous.argmax()), 4), pattern=list(pattern.shape)",
    "contribution_graph": "weights=[edge.weight for edge in graph.edges()], paths=len(paths.edges()), "
    "starts=sorted({edge.target for edge in paths.edges() if edge.layer == 3 and edge.target[0] == 'I'}), "
    "changed=len(changed.edges()), tokens=len(graph.tokens), kinds=sorted({edge.kind for edge in moved}), "
    "pairs=[[edge.source_pos, edge.target_pos] for edge in moved]",
}
"""What is asked of the kernel of each, before its last cell."""

Facts = dict[str, Any]


def source_of(name: str) -> Any:
    require_jupyter()
    import nbformat

    return nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with server_process() as at:
        yield at


def facts_of(name: str, environment: dict[str, str]) -> Facts:
    """Execute a notebook; what its kernel knows at the end."""
    require_jupyter()
    from nbformat.v4 import new_code_cell

    notebook = source_of(name)
    asked = f"import json, torch\nprint(json.dumps(dict({FACTS[name]})))"
    notebook.cells.insert(-1, new_code_cell(asked))
    cells = execute(notebook, environment).cells
    failed = {cell.source: traceback(cell) for cell in cells if cell.cell_type == "code" and traceback(cell)}
    assert failed == {}
    assert [stream(cell, "stderr") for cell in cells if cell.cell_type == "code" and stream(cell, "stderr")] == []
    facts: Facts = json.loads(stream(cells[-2], "stdout"))
    return facts


def test_every_notebook_is_executed_here() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.ipynb")} == set(FACTS)


@pytest.mark.parametrize("name", FACTS)
def test_a_notebook_is_stored_without_what_it_showed(name: str) -> None:
    notebook = json.loads((EXAMPLES / f"{name}.ipynb").read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["outputs"] for cell in code] == [[]] * len(code)
    assert {cell["execution_count"] for cell in code} == {None}
    assert set(notebook["metadata"]) == {"kernelspec", "language_info"}


def test_the_first_look_starts_its_own_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRANSPARENT_LLM_ADDRESS", raising=False)
    facts = facts_of("first_look", {})
    (_, n_pos, d_model), (n_heads, *queries_keys), lens = facts["shapes"]
    assert (d_model, n_heads, queries_keys) == (128, 4, [n_pos, n_pos])
    assert lens == [5, n_pos, 1]
    assert facts["best"] == facts["lens"] == facts["likeliest"]
    assert facts["probability"] == pytest.approx(facts["expected"], abs=1e-5)
    assert facts["surprise"] == pytest.approx(facts["nats"], abs=1e-3)


def test_the_terms_of_a_logit_difference_add_up(address: str) -> None:
    facts = facts_of("ioi", {"TRANSPARENT_LLM_ADDRESS": address})
    assert facts["total"] == pytest.approx(facts["difference"], abs=1e-4)
    assert facts["parts"] == pytest.approx(facts["layers"], abs=1e-4)
    assert facts["head"] == facts["most"]
    assert facts["sources"] == pytest.approx(facts["head"], abs=1e-4)


def test_the_hunt_finds_the_induction_head(address: str) -> None:
    facts = facts_of("induction", {"TRANSPARENT_LLM_ADDRESS": address})
    assert facts["best"] == [1, 0]
    assert facts["score"] > 0.9
    assert facts["direct"] > 0.9
    assert facts["previous"] == [0, 0]
    assert facts["second"] < facts["first"] - 3


def test_the_graph_leads_from_tokens_to_the_last_one(address: str) -> None:
    facts = facts_of("contribution_graph", {"TRANSPARENT_LLM_ADDRESS": address})
    assert all(0.1 < weight <= 1 + 1e-6 for weight in facts["weights"])
    assert 0 < facts["paths"] < 2 * len(facts["weights"])
    assert facts["starts"] == [f"I3_{facts['tokens'] - 1}"]
    assert facts["changed"] > 0
    assert facts["kinds"] == ["attention"]
    assert all(source < target for source, target in facts["pairs"])
