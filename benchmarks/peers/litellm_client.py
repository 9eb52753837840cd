"""Run in LiteLLM's environment: make a picture through its library, and print the picture's SHA-256."""

import hashlib
import os
import sys
from base64 import b64decode

import litellm  # type: ignore[import-not-found]  # it is in .venv-peers, never beside PixyProxy


def main() -> None:
    """Call the ``api_base`` with the model from the command line."""
    api_base, model = sys.argv[1:]
    answer = litellm.image_generation(
        model=f"openai/{model}",
        prompt="a red fox in the snow",
        api_base=api_base,
        api_key=os.environ["PIXYPROXY_API_KEY"],
    )
    print(hashlib.sha256(b64decode(answer.data[0].b64_json)).hexdigest())


if __name__ == "__main__":
    main()
