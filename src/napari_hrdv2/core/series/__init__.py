"""One classifier for a series: trained on some images, it reads the others."""
