"""`gateway compare`: two versions of a branch on the same inputs."""
