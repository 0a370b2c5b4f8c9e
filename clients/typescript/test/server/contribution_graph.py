"""Prints the edges of paths to the first sentence's last token, as Python finds them: a list for each pair of a
threshold and whether to renormalize."""

import json
import sys

from transparent_llm import connect
from transparent_llm.analysis.contribution_graph import contribution_graph

target, sentences, pairs = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
with connect(target) as llm:
    llm.run(sentences)
    graphs = [contribution_graph(llm, threshold=least, renormalize=how, progress=False) for least, how in pairs]
    json.dump([graph.paths(-1).edges() for graph in graphs], sys.stdout)
