"""Files of weights: the Hub, checkpoints, archives."""
