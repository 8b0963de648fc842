"""FP16 branches of FP32 models: conversion, the rounding of a GPU, and the models that are made."""
