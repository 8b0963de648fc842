"""Shared parts of several questions: null models, requests, load, services, the environment of a run."""
