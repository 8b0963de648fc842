"""The engine that calls a Triton server over gRPC."""
