"""Exceptions about images and the picture store."""

from pixyproxy.core.exceptions.base import PixyProxyException


class ImageException(PixyProxyException):
    """An error about an image."""

    code = "image_error"
    default_message = "This action is not possible with this image."


class ImageNotFoundException(ImageException):
    """No image with this GUID is visible to the caller."""

    code = "image_not_found"
    default_message = "There is no image with this GUID."


class ImagePromptException(ImageException):
    """The prompt or an option is not acceptable."""

    code = "invalid_prompt"
    default_message = "The prompt is not acceptable."


class InputPictureException(ImagePromptException):
    """An input picture, or the image that the order names as one, cannot be used."""

    code = "invalid_input_picture"
    default_message = (
        "An input picture cannot be used. Send PNG, JPEG, WebP or GIF files, or GUIDs of images of this tenant."
    )


class ImageStorageException(ImageException):
    """The picture store failed."""

    code = "storage_failed"
    default_message = "The picture store cannot be used at the moment. Try again shortly."
    retry_after_seconds: int | None = 30


class StorageFullException(ImageStorageException):
    """The picture store has no space left."""

    code = "storage_full"
    default_message = "The picture store is full. The operator must free space before pictures can be made."


class PictureMissingException(ImageStorageException):
    """The image exists, but its file does not; an operator must restore it."""

    code = "picture_missing"
    default_message = "The file of this picture is missing. The operator must restore it from a backup."
    retry_after_seconds = None
