"""Exporters of the families that need PyTorch."""
