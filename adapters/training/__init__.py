"""Data, training and evaluation of adapters and backbones."""
