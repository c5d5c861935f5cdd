"""Blocks of KV: who has which (pages, blocks, host: pure), by which hashes they are found
(prefixes: pure), what has landed (landings), and their tensors (cache)."""
