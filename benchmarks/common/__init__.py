"""What several questions use: null models, requests, load, services, the environment of a run."""
