"""`python -m transparent_llm` is `transparent-llm`."""

from transparent_llm.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
