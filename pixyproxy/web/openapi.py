"""The OpenAPI document, including responses that FastAPI cannot derive from the types."""

from enum import StrEnum
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from pixyproxy.core.models.generation import GenerationDetail
from pixyproxy.core.models.image import ImageContent, ImageDetail


class Tag(StrEnum):
    """The groups of operations, in the order of the documentation."""

    IMAGE = "image"
    GENERATION = "generation"
    OPENAI = "openai"
    WEBHOOKS = "webhooks"
    IDENTITY = "identity"
    ADMINISTRATION = "administration"
    HEALTH = "health"


TAGS: dict[Tag, str] = {
    Tag.IMAGE: "Generate a picture and wait for it; list, read, change and delete images.",
    Tag.GENERATION: "Order pictures without waiting, and follow their progress.",
    Tag.OPENAI: "The OpenAI Images API. Errors use OpenAI's format.",
    Tag.WEBHOOKS: "Receive an HTTP request when a generation finishes.",
    Tag.IDENTITY: "API keys, users, access tokens, limits and usage.",
    Tag.ADMINISTRATION: "Tenants, the audit log and unresolved generations. For server operators.",
    Tag.HEALTH: "Liveness and readiness.",
}
LICENSE = {"name": "Apache License 2.0", "identifier": "Apache-2.0"}
SECURITY: list[dict[str, list[str]]] = [{"Bearer": []}, {"SignIn": []}]
"""The schemes of ``auth.policies``; either one is sufficient."""

PROBLEM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "Problem details (RFC 9457). Some problems have additional members.",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string", "examples": ["urn:pixyproxy:error:image_not_found"]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong and how to fix it."},
        "code": {"type": "string", "description": "Stable code for programs.", "examples": ["image_not_found"]},
        "request_id": {"type": "string", "description": "Identifies the request in the server's log."},
        "errors": {
            "type": "array",
            "description": "The invalid fields (422).",
            "items": {
                "type": "object",
                "required": ["loc", "type", "msg"],
                "properties": {
                    "loc": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}},
                    "type": {"type": "string"},
                    "msg": {"type": "string"},
                },
            },
        },
    },
}
PROBLEM_CONTENT = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
OAUTH_ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "An OAuth 2 error (RFC 6749 §5.2).",
    "required": ["error", "error_description", "code", "request_id"],
    "properties": {
        "error": {"type": "string", "description": "The standard error code.", "examples": ["invalid_grant"]},
        "error_description": {"type": "string", "description": "What is wrong and how to fix it."},
        "code": {"type": "string", "description": "The same code as in problem details."},
        "request_id": {"type": "string", "description": "Identifies the request in the server's log."},
    },
}
OAUTH_ERROR_CONTENT = {"application/json": {"schema": {"$ref": "#/components/schemas/OAuthError"}}}
PICTURE_CONTENT = {
    media_type: {"schema": {"type": "string", "format": "binary"}}
    for media_type in ("image/png", "image/jpeg", "image/webp", "image/gif")
}

OPENAI_ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "An error in OpenAI's format.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code", "request_id"],
            "properties": {
                "message": {"type": "string", "description": "What is wrong and how to fix it."},
                "type": {"type": "string", "examples": ["invalid_request_error"]},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string", "description": "As in problem details, or the upstream's own code."},
                "request_id": {"type": "string", "description": "Identifies the request in the server's log."},
            },
        }
    },
}
OPENAI_ERROR_CONTENT = {"application/json": {"schema": {"$ref": "#/components/schemas/OpenAIError"}}}
IMAGES_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "The upstream's response, with the GUIDs of the stored images.",
    "required": ["created", "data", "generation"],
    "properties": {
        "created": {"type": "integer"},
        "generation": {"type": "string", "description": "GUID of the generation."},
        "usage": {"type": "object"},
        "data": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["guid"],
                "properties": {
                    "guid": {"type": "string", "description": "GUID of the image."},
                    "b64_json": {"type": "string"},
                    "url": {"type": "string", "description": "Permanent URL of the picture."},
                    "revised_prompt": {"type": "string"},
                },
            },
        },
    },
}
OPENAI_EDIT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "Input pictures and a prompt. At least one of `image` and `image_guid` is required.",
    "required": ["prompt"],
    "properties": {
        "prompt": {
            "type": "string",
            "minLength": 1,
            "maxLength": 32000,
            "description": "The change to make.",
            "examples": ["the same, at night under a full moon"],
        },
        "image": {
            "type": "array",
            "items": {"type": "string", "format": "binary"},
            "maxItems": 16,
            "description": "Input picture files.",
        },
        "image_guid": {"type": "string", "description": "GUID of an existing image of the tenant."},
        "mask": {"type": "string", "format": "binary", "description": "Transparent where `image` is to be edited."},
        "model": {"type": "string", "description": "Defaults to the server's default model."},
        # No default: openapi-typescript would make the field required.
        "n": {"type": "integer", "minimum": 1, "maximum": 10, "examples": [1]},
        "size": {"type": "string"},
        "quality": {"type": "string"},
        "response_format": {"type": "string", "enum": ["url", "b64_json"], "examples": ["url"]},
        "stream": {"type": "boolean", "examples": [False]},
        "partial_images": {"type": "integer", "minimum": 0, "maximum": 3, "examples": [0]},
        "visibility": {"type": "string", "enum": ["public", "private"], "examples": ["private"]},
        "filename": {"type": "string", "maxLength": 255},
    },
}
EDIT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": {"schema": {"$ref": "#/components/schemas/OpenAIImageEdit"}}},
    }
}

OPEN_TO_EVERYONE: dict[str, Any] = {"security": [{}]}
"""An additional security alternative: no credentials."""

Responses = dict[int | str, dict[str, Any]]


def _header(description: str) -> dict[str, Any]:
    return {"description": description, "schema": {"type": "string"}}


def _events(*names: str) -> dict[str, Any]:
    """Return the content of a response with server-sent events of these names, whose data is JSON."""
    properties = {
        "event": {"type": "string", "enum": list(names)},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "id": {"type": "string", "description": "Send it as `Last-Event-ID` to continue after this event."},
    }
    schema = {"type": "object", "required": ["event", "data"], "properties": properties}
    return {"text/event-stream": {"schema": schema}}


LIST_RESPONSES: Responses = {
    200: {
        "description": "One page of results.",
        "headers": {"Link": _header('The next page as `rel="next"`, if there is one.')},
    }
}
CREATED_RESPONSES: Responses = {
    201: {
        "model": ImageDetail,
        "description": "The picture was generated and stored.",
        "headers": {
            "Location": _header("URL of the image."),
            "Idempotency-Replayed": _header("`true` if an earlier request generated the picture."),
        },
    }
}
ACCEPTED_RESPONSES: Responses = {
    202: {
        "model": GenerationDetail,
        "description": "The order was accepted; `Location` is the generation to poll.",
        "headers": {
            "Location": _header("URL of the generation."),
            "Idempotency-Replayed": _header("`true` if an earlier request submitted the same order."),
            "Preference-Applied": _header("`respond-async` if the request preferred it."),
        },
    }
}
EVENTS_RESPONSES: Responses = {
    204: {"description": "`Last-Event-ID` was the final event: no more events will follow."},
    200: {
        "description": "Events: `status`, `partial` (a preview in `b64_json`), and finally `stored` or `failed`.",
        "content": _events("status", "partial", "stored", "failed"),
    },
}
ALL_EVENTS_RESPONSES: Responses = {
    200: {
        "description": "An endless stream of `status`, `stored` and `failed` events, each with a generation.",
        "content": _events("status", "stored", "failed"),
    },
}
CONTENT_RESPONSES: Responses = {
    200: {
        "description": "The picture.",
        "content": {
            **PICTURE_CONTENT,
            "application/json": {"schema": {"$ref": "#/components/schemas/ImageContent"}},
        },
    },
    206: {"description": "The requested ranges.", "content": {**PICTURE_CONTENT, "multipart/byteranges": {}}},
    304: {"description": "The client's copy is current."},
}


IMAGES_RESPONSES: Responses = {
    200: {
        "description": "The pictures were generated and stored; with `stream`, server-sent events.",
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/Images"}},
            **_events(
                "image_generation.partial_image",
                "image_generation.completed",
                "image_edit.partial_image",
                "image_edit.completed",
                "error",
            ),
        },
    }
}


def problems(*statuses: int) -> Responses:
    """Return the responses for problems with these statuses."""
    return {
        status: {"description": HTTPStatus(status).phrase, "content": PROBLEM_CONTENT} for status in sorted(statuses)
    }


def oauth_errors(*statuses: int) -> Responses:
    """Return the responses for OAuth errors with these statuses (RFC 6749 §5.2)."""
    return {
        status: {"description": HTTPStatus(status).phrase, "content": OAUTH_ERROR_CONTENT}
        for status in sorted(statuses)
    }


def openai_errors(*statuses: int) -> Responses:
    """Return the responses for errors of the OpenAI-compatible API with these statuses."""
    return {
        status: {"description": HTTPStatus(status).phrase, "content": OPENAI_ERROR_CONTENT}
        for status in sorted(statuses)
    }


def install_openapi(app: FastAPI, *, prefix: str) -> None:
    """Replace ``app.openapi`` so that the document has PixyProxy's error schemas instead of FastAPI's.

    ``prefix`` is the path under which a reverse proxy serves the application, if any.
    """

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, prefix)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend the document


def _document(app: FastAPI, prefix: str) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        license_info=LICENSE,
        servers=app.servers,
        tags=[{"name": tag.value, "description": description} for tag, description in TAGS.items()],
    )
    document["security"] = SECURITY
    schemas: dict[str, Any] = document["components"]["schemas"]
    schemas["Problem"] = PROBLEM_SCHEMA
    schemas["OAuthError"] = OAUTH_ERROR_SCHEMA
    schemas["OpenAIError"] = OPENAI_ERROR_SCHEMA
    schemas["Images"] = IMAGES_SCHEMA
    schemas["OpenAIImageEdit"] = OPENAI_EDIT_SCHEMA
    schemas["ImageContent"] = ImageContent.model_json_schema()
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for scheme in document["components"]["securitySchemes"].values():
        for flow in scheme.get("flows", {}).values():
            # The URL is relative to the host, not to the server's path.
            flow["tokenUrl"] = prefix + flow["tokenUrl"]
    for path in document["paths"].values():
        for operation in path.values():
            # An operation without its own list would inherit the document's.
            operation.setdefault("security", [])
            _drop_framework_error(operation["responses"])
            _leave_form_fields_empty(operation, schemas)
    return document


def _leave_form_fields_empty(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Add an empty example to optional text fields of a form: otherwise Swagger UI submits random text."""
    content = operation.get("requestBody", {}).get("content", {})
    for media_type in content.keys() & {"application/x-www-form-urlencoded", "multipart/form-data"}:
        schema = schemas[content[media_type]["schema"]["$ref"].rpartition("/")[2]]
        for name in schema["properties"].keys() - schema["required"]:
            field = schema["properties"][name]
            if field.get("type", "string") == "string" and field.get("format") != "binary":
                field.setdefault("examples", [""])


def _drop_framework_error(responses: dict[str, Any]) -> None:
    """Remove FastAPI's own 422 response, which no route returns."""
    content = responses.get("422", {}).get("content", {})
    content.pop("application/json", None)
    if not content:
        responses.pop("422", None)
