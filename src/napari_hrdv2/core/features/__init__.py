"""Token maps to high-resolution features: transforms, upsampling, reading."""
