"""FP16 models beside FP32 ones: answers, files, and what the parts that stay in FP32 are worth."""
