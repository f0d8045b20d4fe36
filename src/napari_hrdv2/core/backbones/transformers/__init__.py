"""Vision models of the Hub by the transformers library."""
