"""What a user's program does, in an environment that has the wheel and nothing else: read_values.py ADDRESS FILE."""

import importlib.util
import sys

from safetensors.torch import save_file

import transparent_llm

for package in ("transformer_lens", "transformers"):
    if importlib.util.find_spec(package) is not None:
        sys.exit(f"{package} is here: this is not the client alone")

with transparent_llm.connect(sys.argv[1], weights_dir="weights") as llm:
    llm.run(["My lord, the king of France", "What say you?"])
    values = {
        "tokens": llm.tokens(),
        "logits": llm.logits(),
        "residual": llm.residual_out(1),
        "pattern": llm.attention_matrix(0, 1, 2),
        "heads": llm.decomposed_attn(1, 2),  # multiplied here, of its factors
        "neurons": llm.decomposed_ffn_out(0, 3, 4),
        "unembedded": llm.unembed(llm.residual_out(3)[0, -1], normalize=True),
    }
    print(llm.tokens_to_strings(llm.tokens()[0]))
save_file({name: value.contiguous() for name, value in values.items()}, sys.argv[2])
