"""Rate limits and request bounds: owners, counters, and limits on JSON bodies."""
