"""What there is to see without labels: inside of a backbone, and in features."""
