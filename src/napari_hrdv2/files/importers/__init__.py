"""Labels from other programs: ilastik, Labkit, ImageJ, images of labels."""
