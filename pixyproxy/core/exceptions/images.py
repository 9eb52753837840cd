"""Images and the store of their pictures."""

from pixyproxy.core.exceptions.base import PixyProxyException


class ImageException(PixyProxyException):
    """Something about an image."""

    code = "image_error"
    default_message = "The image cannot be used that way."


class ImageNotFoundException(ImageException):
    """No image of that GUID is visible to the caller."""

    code = "image_not_found"
    default_message = "There is no image with this GUID."


class ImagePromptException(ImageException):
    """The prompt, or an option that came with it, is not acceptable."""

    code = "invalid_prompt"
    default_message = "The prompt is not acceptable."


class InputPictureException(ImagePromptException):
    """A picture that came with the order, or the image that it names, cannot be used."""

    code = "invalid_input_picture"
    default_message = (
        "A picture to be edited cannot be used: send PNG, JPEG, WebP or GIF files, or GUIDs of images of this tenant."
    )


class ImageStorageException(ImageException):
    """The picture store failed."""

    code = "storage_failed"
    default_message = "The picture store cannot be used just now. Try again shortly."
    retry_after_seconds: int | None = 30


class StorageFullException(ImageStorageException):
    """No room is left for a picture."""

    code = "storage_full"
    default_message = "The picture store is full. Its operator must make room before pictures can be made."


class PictureMissingException(ImageStorageException):
    """The details are there, the file is not: an operator has to restore it."""

    code = "picture_missing"
    default_message = "The file of this picture is missing. Its operator must restore it from a backup."
    retry_after_seconds = None
