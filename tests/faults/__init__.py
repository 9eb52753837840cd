"""Faults brought about for real: databases that die, clients that hang up, processes that are killed."""
