"""Prints how sentences differ from themselves without a layer's feed-forward part, as Python finds it: of each row the
divergence, and for each of the runs the most likely next token and its text."""

import json
import sys

from transparent_llm import connect
from transparent_llm.interventions import ffn_out, zero

target, sentences, layer = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
with connect(target) as llm, connect(target) as edited:
    llm.run(sentences)
    edited.run(sentences, edits=[zero(ffn_out(layer))])
    rows = llm.compare(edited)
    names = ("kl", "top_token", "top_string", "other_top_token", "other_top_string", "top_changed")
    json.dump([[getattr(row, name) for name in names] for row in rows], sys.stdout)
