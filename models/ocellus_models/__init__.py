"""Residual networks for Ocellus: train, export, quantize, bundle."""
