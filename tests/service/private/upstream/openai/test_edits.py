"""The OpenAI adapter and orders with input pictures."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pixyproxy.core import exceptions as core
from pixyproxy.core.models.image import MediaType
from pixyproxy.core.models.order import InputField, InputPicture, Operation, PictureOrder
from pixyproxy.service.private.upstream.openai.images import OpenAIUpstream
from tests.service.private.upstream.openai.adapters import open_adapter
from tests.service.private.upstream.openai.sinks import FakeSink
from tests.support import pictures
from tests.support import upstream as fakes
from tests.support.upstream import FakeUpstream

pytestmark = pytest.mark.anyio
MODEL = "gpt-image-2.5-flare"


class Inputs:
    """The files of an order in a folder."""

    def __init__(self, folder: Path) -> None:
        self.paths: list[Path] = []
        self._folder = folder
        self._pictures: list[InputPicture] = []

    def add(self, field: InputField, content: bytes, media_type: MediaType = "image/png") -> None:
        """Add a file."""
        path = self._folder / f"secret-name-{len(self.paths)}"
        path.write_bytes(content)
        self.paths.append(path)
        digest = hashlib.sha256(content).hexdigest()
        self._pictures.append(InputPicture(field=field, media_type=media_type, byte_size=len(content), sha256=digest))

    def order(self, **more: object) -> PictureOrder:
        """Return an order with the files."""
        base = {"operation": Operation.EDIT, "prompt": "a blue fox", "model": MODEL, "inputs": tuple(self._pictures)}
        return PictureOrder.model_validate({**base, **more})


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    """Return an empty set of files."""
    return Inputs(tmp_path)


@pytest.fixture
async def adapter(upstream: FakeUpstream) -> AsyncIterator[OpenAIUpstream]:
    """Yield the adapter with the fake upstream."""
    opened = open_adapter(upstream.base_url, api_key=upstream.api_key)
    yield opened
    await opened.close()


async def test_single_picture_is_edited(adapter: OpenAIUpstream, upstream: FakeUpstream, inputs: Inputs) -> None:
    sink = FakeSink()
    content = pictures.noise_png(400_000)
    inputs.add("image", content)
    said = await adapter.draw(inputs.order(), inputs=inputs.paths, sink=sink)
    (request,) = upstream.requests
    assert request.path == fakes.EDITS_PATH
    assert request.body == {"prompt": "a blue fox", "model": MODEL}
    (file,) = request.files
    assert (file.name, file.filename, file.content_type) == ("image", "image-0.png", "image/png")
    assert file.content == content
    assert len(sink.kept) == 1
    assert said.usage is not None
    assert said.usage.input_image_tokens > 0


async def test_several_pictures_and_a_mask_are_sent_with_all_options(
    adapter: OpenAIUpstream, upstream: FakeUpstream, inputs: Inputs
) -> None:
    sink = FakeSink()
    inputs.add("image", pictures.png(32, 32))
    inputs.add("image", pictures.jpeg(64, 64), "image/jpeg")
    inputs.add("mask", pictures.png(32, 32, seed=1))
    inputs.add("image", pictures.webp(64, 64), "image/webp")
    options = {"size": "1024x1024", "output_format": "jpeg", "output_compression": 50, "quality": "low"}
    order = inputs.order(count=2, previews=1, options={**options, "image[]": "x", "mask": "x", "n": 9})
    await adapter.draw(order, inputs=inputs.paths, sink=sink)
    (request,) = upstream.requests
    own = {"prompt": "a blue fox", "model": MODEL, "n": 2, "stream": True, "partial_images": 1}
    assert request.body == {**own, **options}
    assert [(file.name, file.content_type, file.content) for file in request.files] == [
        ("image[]", "image/png", inputs.paths[0].read_bytes()),
        ("image[]", "image/jpeg", inputs.paths[1].read_bytes()),
        ("image[]", "image/webp", inputs.paths[3].read_bytes()),
        ("mask", "image/png", inputs.paths[2].read_bytes()),
    ]
    assert b"secret-name" not in request.raw
    assert (len(sink.kept), len(sink.kept_previews)) == (2, 1)


async def test_markup_is_sent_with_its_picture(adapter: OpenAIUpstream, upstream: FakeUpstream, inputs: Inputs) -> None:
    inputs.add("image", pictures.png(32, 32))
    inputs.add("markup", pictures.png(32, 32))
    await adapter.draw(inputs.order(), inputs=inputs.paths, sink=FakeSink())
    (request,) = upstream.requests
    assert [file.name for file in request.files] == ["image", "markup"]


async def test_refused_picture_has_its_field(adapter: OpenAIUpstream, upstream: FakeUpstream, inputs: Inputs) -> None:
    inputs.add("image", b"no picture")
    with pytest.raises(core.PromptRefusedException) as caught:
        await adapter.draw(inputs.order(), inputs=inputs.paths, sink=FakeSink())
    assert caught.value.context["upstream_param"] == "image"
    assert len(upstream.requests) == 1


async def test_missing_file_is_detected_before_sending(
    adapter: OpenAIUpstream, upstream: FakeUpstream, inputs: Inputs
) -> None:
    inputs.add("image", pictures.png(32, 32))
    inputs.add("image", pictures.png(32, 32))
    inputs.paths[1].unlink()
    with pytest.raises(core.ImageStorageException):
        await adapter.draw(inputs.order(), inputs=inputs.paths, sink=FakeSink())
    assert upstream.requests == []


async def test_unreadable_file_buys_nothing(adapter: OpenAIUpstream, upstream: FakeUpstream, inputs: Inputs) -> None:
    inputs.add("image", pictures.png(32, 32))
    # It can be opened, but its first page cannot be read.
    unreadable = Path("/proc/self/mem")
    with pytest.raises(core.ImageStorageException):
        await adapter.draw(inputs.order(), inputs=[unreadable], sink=FakeSink())
    assert [line for line in upstream.ledger if line.bought] == []


@pytest.mark.parametrize("behaviour", [fakes.CUT, fakes.SERVER_ERROR, fakes.MODERATED], ids=["cut", "500", "400"])
async def test_edit_is_posted_once_and_its_files_are_closed(
    adapter: OpenAIUpstream, upstream: FakeUpstream, inputs: Inputs, behaviour: fakes.Behaviour
) -> None:
    """A file left open would be reported by pytest."""
    upstream.behave(behaviour)
    inputs.add("image", pictures.noise_png(400_000))
    with pytest.raises(core.ImageGenerationException):
        await adapter.draw(inputs.order(), inputs=inputs.paths, sink=FakeSink())
    assert len(upstream.requests) == 1
