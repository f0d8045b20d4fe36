"""SPiT: a Vision Transformer whose tokens are regions of any shape."""
