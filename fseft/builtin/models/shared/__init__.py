"""Class names, preprocessing contracts and checkpoint conversions that several models share."""
