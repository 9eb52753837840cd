"""``python -m benchmarks.peers``: PixyProxy beside LiteLLM, in the same run, with the same client and upstream.

LiteLLM is installed into ``.venv-peers``, an environment of its own. It runs as one process without a
database, knows one key and stores nothing; PixyProxy runs as in production, and keeps every picture. A bare forwarder
(``forwarder.py``) shows what FastAPI and the SDK take by themselves.
"""
