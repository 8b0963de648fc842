"""Answers of the service as frozen dataclasses. Fields that a newer service adds are ignored."""
