"""A small model in a folder: a convolution in place of attention in its first layer, attention in its second."""

import sys
from pathlib import Path

from support.models import families


def main() -> None:
    """Write it into the folder that is named."""
    folder = Path(sys.argv[1])
    families.build_model(families.hybrid_config()).save_pretrained(folder)
    families.build_tokenizer().save_pretrained(folder)


main()
