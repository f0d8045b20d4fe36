"""Vision Transformers."""
