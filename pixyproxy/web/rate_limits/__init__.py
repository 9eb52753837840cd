"""Rate limits and other bounds: who is counted, where, and what a request may bring."""
