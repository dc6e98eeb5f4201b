"""Directional dark-field X-ray tensor tomography."""

__version__ = "0.1.0"
