"""OpenAPI of each family's routes: schemas and examples of the answers, and commands to try."""
