"""``python -m benchmarks.peers``: compare PixyProxy with LiteLLM in one run, with the same client and upstream.

LiteLLM is installed into ``.venv-peers``, a separate environment. It runs as one process without a database, with one
key, and stores nothing; PixyProxy runs as in production and stores every picture. A bare forwarder (``forwarder.py``)
shows the cost of FastAPI and the SDK alone.
"""
