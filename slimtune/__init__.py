"""slimtune: fine-tune a small language model on one GPU, with proof that it helped."""

__version__ = "0.1.0"
