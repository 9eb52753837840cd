"""Real faults: databases that die, clients that hang up, processes that are killed."""
