"""From a grid of tokens to pixels."""
