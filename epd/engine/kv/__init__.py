"""Blocks of KV: who owns which (blocks, pure) and their tensors (cache)."""
