"""From what is stored to what is shown."""

from pixyproxy.core.models.image import ImageDetail, ImageGuid, StoredImage

SHOWN = set(ImageDetail.model_fields) - {"content_url"}


def content_path(guid: ImageGuid) -> str:
    """The path of a picture, for good."""
    return f"/image/{guid}/content"


def image_detail(image: StoredImage, *, public_url: str) -> ImageDetail:
    """What viewers see of an image; the internal id and the tenant are not in it."""
    return ImageDetail(**image.model_dump(include=SHOWN), content_url=public_url + content_path(image.guid))
