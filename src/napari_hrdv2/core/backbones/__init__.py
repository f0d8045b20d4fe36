"""Image to token maps: frozen networks and filter banks, and the registry of them."""
