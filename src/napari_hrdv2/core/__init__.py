"""Arrays in, arrays out: features, transforms, backbones and the classifier.

Nothing here knows of napari, Qt or the files of a user's session.
"""
