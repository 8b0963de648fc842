"""Pure numpy: geometry, decoding of model outputs, suppression."""
