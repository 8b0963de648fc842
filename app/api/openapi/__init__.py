"""The OpenAPI description: schemas, examples, problems and security."""
