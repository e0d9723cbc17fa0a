"""yeast_get: predict yeast gene expression with a Transformer of the GET family."""

__version__ = "0.1.0"
