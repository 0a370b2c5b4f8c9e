"""Prints the edges of a sentence with the largest scores, as Python finds them: sender, receiver and score."""

import json
import sys

from transparent_llm import connect
from transparent_llm.analysis.edge_attribution import edge_attribution
from transparent_llm.analysis.metrics import Metric

target, base_sentence, source_sentence, token, steps, count = sys.argv[1], *sys.argv[2:4], *map(int, sys.argv[4:])
with connect(target) as base, connect(target) as source:
    base.run([base_sentence])
    source.run([source_sentence])
    found = edge_attribution(source, base, Metric(token), steps=steps)
    json.dump(found.top_edges(count), sys.stdout)
