"""The ``pixyproxy`` command."""

from pixyproxy.cli.administration import audit_app, signing_key_app, tenant_app, token_app
from pixyproxy.cli.credentials import key_app, user_app
from pixyproxy.cli.generations import generation_app
from pixyproxy.cli.program import app

app.add_typer(tenant_app, name="tenant")
app.add_typer(key_app, name="key")
app.add_typer(user_app, name="user")
app.add_typer(token_app, name="token")
app.add_typer(signing_key_app, name="keys")
app.add_typer(audit_app, name="audit")
app.add_typer(generation_app, name="generation")

__all__ = ["app"]
