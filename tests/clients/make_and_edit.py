"""Make, read and edit a picture with openapi-python-client's client, and print the result as JSON.

Run in the environment of the tools, beside the generated package.
"""

import base64
import hashlib
import json
import sys
from io import BytesIO
from uuid import UUID

from pixyproxy_client import AuthenticatedClient
from pixyproxy_client.api.image import create_image, get_image_content
from pixyproxy_client.api.openai import edit_openai_image
from pixyproxy_client.models import (
    ImageContent,
    ImageDetail,
    ImagePrompt,
    Images,
    OpenAIImageEdit,
    OpenAIImageEditResponseFormat,
)
from pixyproxy_client.types import File

base_url, api_key = sys.argv[1:]
client = AuthenticatedClient(base_url=base_url, token=api_key, timeout=60)

made = create_image.sync(client=client, body=ImagePrompt(prompt="a red fox in the snow"))
assert isinstance(made, ImageDetail), made

# The client reads JSON alone, so it has to ask for JSON.
as_json = client.with_headers({"Accept": "application/json"})
read = get_image_content.sync(UUID(made.guid), client=as_json)
assert isinstance(read, ImageContent), read
picture = base64.b64decode(read.content_base64)

edit = OpenAIImageEdit(
    prompt="the same at night",
    image=[File(payload=BytesIO(picture), file_name=read.filename, mime_type=read.media_type)],
    stream=False,
    response_format=OpenAIImageEditResponseFormat.URL,
)
edited = edit_openai_image.sync(client=client, body=edit)
assert isinstance(edited, Images), edited

outcome = {
    "guid": made.guid,
    "sha256": made.sha256,
    "read_sha256": hashlib.sha256(picture).hexdigest(),
    "edited": edited.data[0].guid,
}
sys.stdout.write(json.dumps(outcome))
