"""PIAA, step by step: multi-label recognition with a frozen CLIP, read patch by patch."""
