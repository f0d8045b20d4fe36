"""One classifier for a series: trained on some images, it reads the others."""

REVISION = 3  # of what is made of an image: with a new one, all is done anew
