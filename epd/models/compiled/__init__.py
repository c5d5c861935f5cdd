"""Decode steps in C++, compiled for the CPU they run on; transformers' modules do all else."""
