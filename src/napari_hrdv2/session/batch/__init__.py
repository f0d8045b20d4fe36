"""One classifier on many images."""
