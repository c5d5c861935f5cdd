"""Decode steps that are recorded per batch size and replayed: what decides, what records."""

from epd.engine.decode_graphs.capture import Capture, Recorded
from epd.engine.decode_graphs.graphs import DecodeGraphs, DecodeRows, graphs_for

__all__ = ["Capture", "DecodeGraphs", "DecodeRows", "Recorded", "graphs_for"]
