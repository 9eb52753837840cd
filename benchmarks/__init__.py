"""``python -m benchmarks``: measure start, memory, generation and serving beside the bare upstream call.

As in production, PixyProxy, the upstream and MariaDB are separate processes on loopback, and pictures are stored. These
are not tests; on another machine only the ratios and targets are meaningful.
"""
