"""Pipelined extraction of missing rows: decode, forward, store. May import every other folder of `extract`."""
