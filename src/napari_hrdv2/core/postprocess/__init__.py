"""Labels to labels: smoothing, small regions, single objects."""
