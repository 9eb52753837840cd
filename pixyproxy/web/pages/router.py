"""The pages and their files, all served from this package without other hosts."""

from pathlib import Path

from fastapi import APIRouter, HTTPException
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.requests import Request
from starlette.staticfiles import StaticFiles

from pixyproxy.web.rate_limits.limits import PROBE

STATIC = Path(__file__).parent / "static"
FOLDERS = StaticFiles(directory=STATIC, packages=[("fastapi_swagger", "resources")])
FILES = {path.name for path in STATIC.iterdir() if path.suffix in {".css", ".js", ".svg"}} | {
    "swagger-ui.css",
    "swagger-ui-bundle.js",
}
"""All served files: client paths are only looked up here."""

PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "same-origin",
}
# FastAPI's Swagger UI page has an inline start-up script, and Swagger UI embeds its icons as data URLs.
DOCS_HEADERS = PAGE_HEADERS | {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
        "script-src 'self' 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'"
    )
}


async def gallery(request: Request) -> Response:
    """Return the page with the newest pictures."""
    return await _file(request, "index.html", PAGE_HEADERS)


async def docs() -> HTMLResponse:
    """Return the interactive API documentation. Its files have relative URLs, so that any prefix works."""
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title="PixyProxy API",
        swagger_js_url="static/swagger-ui-bundle.js",
        swagger_css_url="static/swagger-ui.css",
        swagger_favicon_url="static/icon.svg",
    )
    return HTMLResponse(page.body, headers=DOCS_HEADERS)


async def openapi_document(request: Request) -> JSONResponse:
    """Return the OpenAPI document."""
    return JSONResponse(request.app.openapi())


async def static_file(request: Request, name: str) -> Response:
    """Return a style sheet, script or icon of the pages."""
    if name not in FILES:
        raise HTTPException(404)
    return await _file(request, name, {})


async def _file(request: Request, name: str, headers: dict[str, str]) -> Response:
    """Return a file, or 304 if the client's copy is current; caches revalidate, so that updates show at once."""
    response = await FOLDERS.get_response(name, request.scope)
    response.headers.update(headers | {"Cache-Control": "no-cache"})
    return response


def page_router() -> APIRouter:
    """Return the router of the pages."""
    router = APIRouter(include_in_schema=False, dependencies=[PROBE])
    router.get("/")(gallery)
    router.get("/docs")(docs)
    router.get("/openapi.json")(openapi_document)
    router.get("/static/{name}")(static_file)
    return router
