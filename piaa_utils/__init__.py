"""PIAA, step by step: multi-label recognition with a frozen CLIP, from patches, without training."""
