"""``python -m benchmarks``: start, memory, generation and serving, measured beside the bare upstream call.

Everything runs as it does in production: PixyProxy, the upstream and MariaDB are processes of their own, on
loopback, and storing is included. Nothing here is a test; only ratios and the targets mean anything on
another machine.
"""
