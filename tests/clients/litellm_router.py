"""Order pictures with LiteLLM's Router, which retries by itself, and print the outcomes as a JSON list.

Run with the environment that ``make bench-peers`` creates in ``.venv-peers``.
"""

import json
import os
import sys

import litellm  # type: ignore[import-not-found]  # it is in .venv-peers, never beside PixyProxy

NUM_RETRIES = 4


def main() -> None:
    """Order the prompts of the command line in sequence."""
    url, model, timeout, *prompts = sys.argv[1:]
    parameters = {
        "model": f"openai/{model}",
        "api_base": f"{url}/v1",
        "api_key": os.environ["PIXYPROXY_API_KEY"],
        "timeout": float(timeout),
    }
    router = litellm.Router(
        model_list=[{"model_name": "pictures", "litellm_params": parameters}], num_retries=NUM_RETRIES
    )
    sys.stdout.write(json.dumps([_order(router, prompt) for prompt in prompts]))


def _order(router: litellm.Router, prompt: str) -> str:
    try:
        answer = router.image_generation(prompt=prompt, model="pictures", size="64x64")
    except Exception as error:  # noqa: BLE001  (LiteLLM's exceptions have no common base)
        return type(error).__name__
    return "a picture" if answer.data[0].b64_json else "no picture"


if __name__ == "__main__":
    main()
