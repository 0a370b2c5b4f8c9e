"""From files to a model of Hugging Face, exactly or not at all."""
