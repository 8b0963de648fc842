"""How the cost grows with pictures, callers, prompts, boxes, workers and videos."""
