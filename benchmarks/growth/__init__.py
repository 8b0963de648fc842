"""Growth of the cost with pictures, callers, prompts, boxes, workers and videos."""
