"""The engine that runs ONNX Runtime in this process."""
