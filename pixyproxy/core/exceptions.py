"""Everything that the data and service layers raise.

    PixyProxyException
    ├── ConfigurationException                 the server cannot start with these settings
    ├── AuthenticationException                who is asking cannot be told
    │   ├── CredentialMissingException
    │   ├── CredentialInvalidException
    │   └── IssuerUnavailableException         the keys of a trusted issuer cannot be had
    ├── ServerBusyException                    too many wait for the same thing
    ├── TooManyFailuresException               an address or a name has guessed too often
    ├── PermissionException                    a known caller lacks a scope
    │   ├── GrantException                     nobody grants more than they have
    │   ├── TenantSuspendedException
    │   └── ModelNotAllowedException           the tenant or the key may not use the model
    ├── OAuthException                         an answer of RFC 6749 §5.2
    │   ├── OAuthRequestException              invalid_request
    │   ├── OAuthClientException               invalid_client
    │   ├── OAuthGrantException                invalid_grant
    │   ├── OAuthGrantTypeException            unsupported_grant_type
    │   ├── OAuthUnauthorizedException         unauthorized_client
    │   └── OAuthScopeException                invalid_scope
    ├── InvalidRequestException                a model did not survive revalidation
    │   └── InvalidCursorException
    ├── TenantException
    │   ├── TenantNotFoundException
    │   ├── TenantExistsException
    │   └── OwnTenantException                 an operator would shut themselves out
    ├── ApiKeyException
    │   ├── ApiKeyNotFoundException
    │   └── ApiKeyRevokedException
    ├── UserException
    │   ├── UserNotFoundException
    │   └── UserExistsException
    ├── WebhookException
    │   ├── WebhookNotFoundException
    │   ├── WebhookTargetException             an address that the server must not, or cannot, call
    │   └── WebhookLimitException
    ├── DatabaseException                      the database answered with something unforeseen
    │   ├── DatabaseUnavailableException       it cannot be reached, or broke off
    │   ├── DatabaseBusyException              no slot, or a lock, in the time allowed
    │   ├── SignInUnrecordedException          a failed sign-in, and no way to write it down
    │   └── SchemaException                    newer, half-applied or foreign schema
    └── ImageException
        ├── ImageNotFoundException             absent, or not visible to the caller: never told apart
        ├── ImagePromptException               the prompt, or what came with it, is not acceptable
        │   └── InputPictureException          a picture to be edited is none, or not the caller's
        ├── ImageStorageException              the picture store failed
        │   ├── StorageFullException
        │   └── PictureMissingException        details exist, their file does not
        └── ImageGenerationException           no picture came of it
            ├── BudgetUnpricedException        a budget, and no price to keep it by
            ├── BudgetExceededException        what is left of the month's budget is not enough
            ├── ImageLimitException            more pictures at once than the limit of a minute has left
            ├── QueueFullException             too many of the tenant wait already
            ├── QueueTimeoutException          no upstream had a place in time
            ├── ModelUnknownException          no upstream offers the model
            ├── GenerationNotFoundException    absent, or not the caller's
            ├── GenerationResolvedException    there is nothing to resolve any more
            ├── PromptRefusedException         the upstream said no to the request (4xx)
            ├── UpstreamCredentialException    the upstream refuses our own key
            ├── UpstreamBusyException          the upstream's rate or quota is used up (429)
            ├── UpstreamErrorException         the upstream said that it failed (5xx)
            ├── UpstreamUnreachableException   no connection: the upstream did nothing
            ├── UpstreamAnswerException        a whole answer, but no picture in it
            │   └── PictureUnusableException   a picture in it, but none that we can keep
            ├── UpstreamSilentException        cut off: it may have done the work
            │   └── UpstreamTimeoutException   out of time: likewise
            ├── GenerationInFlightException    the same Idempotency-Key is being worked on
            ├── GenerationUnknownException     the same Idempotency-Key ended without a known outcome
            ├── GenerationDeletedException     the picture made under this key was deleted since
            ├── IdempotencyMismatchException   the same Idempotency-Key with another request
            └── RecordPendingException         the picture is safe, its record waits for the database

Each class has a stable ``code`` for programs and a message that is safe to show to a client: no upstream
text, SQL or path. None of them knows HTTP; ``web/errors.py`` maps them.
"""

from typing import ClassVar


class PixyProxyException(Exception):
    """The root. ``context`` holds further facts that are safe to show, such as a GUID."""

    code: ClassVar[str] = "internal_error"
    default_message: ClassVar[str] = "Something went wrong inside PixyProxy. The request id names it in the log."
    retry_after_seconds: int | None = None

    def __init__(
        self,
        message: str | None = None,
        *,
        retry_after_seconds: int | None = None,
        context: dict[str, str] | None = None,
    ) -> None:
        self.message = message or self.default_message
        self.context = context or {}
        if retry_after_seconds is not None:
            self.retry_after_seconds = retry_after_seconds
        super().__init__(self.message)


class ConfigurationException(PixyProxyException):
    """The settings cannot work; the message says which and how to mend it."""

    code = "configuration_invalid"
    default_message = "A setting is wrong. Run `pixyproxy doctor`."


class AuthenticationException(PixyProxyException):
    """The caller cannot be identified."""

    code = "authentication_failed"
    default_message = "This request needs a valid credential."


class CredentialMissingException(AuthenticationException):
    """A private resource was asked for without any credential."""

    code = "credential_missing"
    default_message = (
        "Send a credential: `Authorization: Bearer` with an API key or an access token, or `X-API-Key: pxy_…`."
    )


class CredentialInvalidException(AuthenticationException):
    """Unknown, malformed, wrong, revoked or expired: deliberately one answer for all of them."""

    code = "credential_invalid"
    default_message = "This credential is not valid: it is unknown, mistyped, expired or revoked."


class IssuerUnavailableException(AuthenticationException):
    """No key of a trusted issuer could be had yet, so its tokens can be neither believed nor refused."""

    code = "issuer_unavailable"
    default_message = "The issuer of this token cannot be reached to check it. Try again shortly."
    retry_after_seconds = 5


class ServerBusyException(PixyProxyException):
    """The wait for one of a few places ran out."""

    code = "server_busy"
    default_message = "Too many requests wait for the same thing just now. Try again shortly."
    retry_after_seconds = 2


class TooManyFailuresException(PixyProxyException):
    """Too many wrong credentials from one address, or for one name; right ones have to wait as well."""

    code = "too_many_failures"
    default_message = "Too many wrong credentials came from here or for this name. Wait as long as `Retry-After` says."
    retry_after_seconds = 60


class PermissionException(PixyProxyException):
    """The credential is good but lacks the scope."""

    code = "scope_missing"
    default_message = "This credential does not carry the scope that the request needs."


class GrantException(PermissionException):
    """A credential would grant what it does not carry itself."""

    code = "grant_exceeds_caller"
    default_message = (
        "Nobody can grant more than they may do themselves. Leave out what this credential does not carry."
    )


class TenantSuspendedException(PermissionException):
    """The credential is good, but an operator has suspended its tenant."""

    code = "tenant_suspended"
    default_message = "This tenant is suspended. Its operator can tell why."


class ModelNotAllowedException(PermissionException):
    """The tenant, or the key, is limited to other models."""

    code = "model_not_allowed"
    default_message = "This credential may not use this model. Ask for one of its `allowed_models`, as /me lists them."


class OAuthException(PixyProxyException):
    """A request that the token endpoint refuses (RFC 6749 §5.2); ``code`` is the standard's own."""

    code = "invalid_request"
    default_message = "The request is not one that the token endpoint understands."


class OAuthRequestException(OAuthException):
    """A parameter is missing, repeated or malformed."""


class OAuthClientException(OAuthException):
    """The client's id and secret are wrong, or missing where they are needed."""

    code = "invalid_client"
    default_message = "The client is not known or its secret is wrong. Send a key id and the key's secret."


class OAuthGrantException(OAuthException):
    """Wrong user name or password, or a refresh token that is no longer good."""

    code = "invalid_grant"
    default_message = "The user name, the password or the refresh token is not valid."


class OAuthGrantTypeException(OAuthException):
    """A grant that this server does not know."""

    code = "unsupported_grant_type"
    default_message = "grant_type must be password, client_credentials or refresh_token."


class OAuthUnauthorizedException(OAuthException):
    """The grant is switched off."""

    code = "unauthorized_client"
    default_message = "Signing in with a password is switched off on this server."


class OAuthScopeException(OAuthException):
    """A scope that does not exist, or that the client or user does not have."""

    code = "invalid_scope"
    default_message = "The scope is unknown, or more than this user or key may have."


class InvalidRequestException(PixyProxyException):
    """A model that reached the service layer is not valid."""

    code = "invalid_request"
    default_message = "The request is not valid."


class InvalidCursorException(InvalidRequestException):
    """A cursor that was altered, is not ours, or belongs to another filter."""

    code = "invalid_cursor"
    default_message = "This cursor is not valid for this filter. Start again without `cursor`."


class TenantException(PixyProxyException):
    """Something about a tenant."""

    code = "tenant_error"
    default_message = "The tenant cannot be used that way."


class TenantNotFoundException(TenantException):
    """There is no such tenant."""

    code = "tenant_not_found"
    default_message = "There is no such tenant."


class TenantExistsException(TenantException):
    """The name is taken."""

    code = "tenant_exists"
    default_message = "A tenant of this name exists already. Choose another name."


class OwnTenantException(TenantException):
    """Suspending or deleting the tenant of the acting credential would leave nobody to undo it."""

    code = "tenant_own"
    default_message = "This credential belongs to the tenant itself. Use one of another tenant."


class ApiKeyException(PixyProxyException):
    """Something about an API key."""

    code = "api_key_error"
    default_message = "The API key cannot be used that way."


class ApiKeyNotFoundException(ApiKeyException):
    """There is no such API key in this tenant."""

    code = "api_key_not_found"
    default_message = "There is no such API key."


class ApiKeyRevokedException(ApiKeyException):
    """A revoked key cannot be brought back by rotating it."""

    code = "api_key_revoked"
    default_message = "This API key is revoked or expired. Make a new one."


class UserException(PixyProxyException):
    """Something about a user."""

    code = "user_error"
    default_message = "The user cannot be used that way."


class UserNotFoundException(UserException):
    """There is no such user in this tenant."""

    code = "user_not_found"
    default_message = "There is no such user."


class UserExistsException(UserException):
    """The name is taken, on this server."""

    code = "user_exists"
    default_message = "This user name is taken. Choose another."


class WebhookException(PixyProxyException):
    """Something about a webhook."""

    code = "webhook_error"
    default_message = "The webhook cannot be used that way."


class WebhookNotFoundException(WebhookException):
    """There is no such webhook in this tenant."""

    code = "webhook_not_found"
    default_message = "There is no such webhook."


class WebhookTargetException(WebhookException):
    """The address is not one that the server may call."""

    code = "webhook_target_refused"
    default_message = (
        "This URL cannot be called: it must be https, and its host must resolve to public addresses. "
        "The operator may allow others (PIXYPROXY_WEBHOOK_ALLOWED_HOSTS)."
    )


class WebhookLimitException(WebhookException):
    """The tenant has as many webhooks as it may have."""

    code = "webhook_limit"
    default_message = "This tenant has as many webhooks as it may have. Delete one first."


class DatabaseException(PixyProxyException):
    """An error of the database that no rule foresees."""

    code = "database_error"
    default_message = "The database answered with an error. The request id names it in the log."


class DatabaseUnavailableException(DatabaseException):
    """The database cannot be reached. What was asked for was not done."""

    code = "database_unavailable"
    default_message = "The database cannot be reached just now. Nothing was changed; try again shortly."
    retry_after_seconds = 5


class DatabaseBusyException(DatabaseException):
    """The wait for a connection or a lock ran out. What was asked for was not done."""

    code = "database_busy"
    default_message = "The database is too busy just now. Nothing was changed; try again shortly."
    retry_after_seconds = 1


class SignInUnrecordedException(DatabaseException):
    """A failed sign-in could not be written to the audit log, so it is not even told that it failed."""

    code = "sign_in_unrecorded"
    default_message = "The sign-in could not be written down, so it is not answered. Try again shortly."
    retry_after_seconds = 5


class SchemaException(DatabaseException):
    """The server must not run on this schema; the message says what to do."""

    code = "schema_unusable"
    default_message = "The database schema does not fit this version of PixyProxy."


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


class ImageGenerationException(ImageException):
    """A generation that gave no picture."""

    code = "generation_failed"
    default_message = "The picture could not be generated."


class BudgetUnpricedException(ImageGenerationException):
    """The tenant has a budget and the model has no price, so the budget could not be kept."""

    code = "budget_unpriced"
    default_message = (
        "This tenant has a monthly budget, but no price is known for the model. Nothing was bought. "
        "The operator must set a price or take the budget away."
    )


class BudgetExceededException(ImageGenerationException):
    """The order could cost more than is left of the tenant's budget of this month."""

    code = "budget_exceeded"
    default_message = (
        "What is left of this tenant's monthly budget is less than this order may cost. Nothing was bought. "
        "Name `size` and `quality`: without them an order may cost the most there is. /me tells what is left."
    )


class ImageLimitException(ImageGenerationException):
    """An order for several pictures, and fewer are left of the limit of a minute."""

    code = "rate_limited"
    default_message = "Too many pictures at once: fewer are left of the limit. Nothing was bought. Ask for fewer."
    retry_after_seconds = 60


class QueueFullException(ImageGenerationException):
    """As many orders of the tenant wait as may; none was accepted."""

    code = "queue_full"
    default_message = "Too many orders of this tenant wait already. Nothing was bought. Try again later."
    retry_after_seconds = 10


class QueueTimeoutException(ImageGenerationException):
    """The order waited for a place at an upstream for as long as it may."""

    code = "queue_timeout"
    default_message = "The image service had no place for this order in time. Nothing was bought. Try again later."
    retry_after_seconds = 10


class ModelUnknownException(ImageGenerationException):
    """No upstream is configured for the model."""

    code = "model_not_found"
    default_message = "No image service here offers this model. /v1/models lists those that there are."


class GenerationNotFoundException(ImageGenerationException):
    """There is no such generation, or it is another tenant's."""

    code = "generation_not_found"
    default_message = "There is no generation with this GUID."


class GenerationResolvedException(ImageGenerationException):
    """Only a generation whose outcome is unknown can be resolved."""

    code = "generation_resolved"
    default_message = "The outcome of this generation is known; there is nothing to resolve."


class PromptRefusedException(ImageGenerationException):
    """The upstream refused the request itself; the same request will be refused again."""

    code = "prompt_refused"
    default_message = (
        "The image model refused this request. Nothing was bought. Change the prompt or its options and try again."
    )


class UpstreamCredentialException(ImageGenerationException):
    """The upstream does not accept PixyProxy's own key, or the key may not use the model."""

    code = "upstream_credential_refused"
    default_message = (
        "The image service refuses PixyProxy's own credential. Nothing was bought. "
        "The operator must check OPENAI_API_KEY and what it may use."
    )


class UpstreamBusyException(ImageGenerationException):
    """The upstream's rate limit or quota is used up."""

    code = "upstream_busy"
    default_message = "The image service is at its limit. Nothing was bought. Try again later."
    retry_after_seconds = 20


class UpstreamErrorException(ImageGenerationException):
    """The upstream reported a failure of its own."""

    code = "upstream_failed"
    default_message = "The image service reported a failure of its own. No picture came of it. Try again shortly."


class UpstreamUnreachableException(ImageGenerationException):
    """No connection to the upstream could be made, so it did nothing."""

    code = "upstream_unreachable"
    default_message = "The image service cannot be reached. Nothing was bought. Try again shortly."
    retry_after_seconds = 10


class UpstreamAnswerException(ImageGenerationException):
    """The upstream answered in full, but without a picture. It is not asked again; nothing is charged here."""

    code = "upstream_answer_invalid"
    default_message = (
        "The image service answered with something that is no picture. Nothing was stored or charged. "
        "Use a new Idempotency-Key, or none, to try again."
    )


class PictureUnusableException(UpstreamAnswerException):
    """The upstream made something that is not kept: no PNG, JPEG, WebP or GIF, or too large."""

    code = "upstream_picture_unusable"
    default_message = (
        "The image service made something that PixyProxy does not keep: no PNG, JPEG, WebP or GIF, or one that is "
        "too large. Nothing was stored or charged. Repeating the same request may make the same again."
    )


class UpstreamSilentException(ImageGenerationException):
    """Cut off after the request was sent: whether it was paid for cannot be known."""

    code = "upstream_silent"
    default_message = (
        "The image service broke off, so it may have done the work. "
        "It was not asked again, and nothing was stored. Repeating the request may buy a second picture."
    )


class UpstreamTimeoutException(UpstreamSilentException):
    """Out of time after the request was sent: whether it was paid for cannot be known."""

    code = "upstream_timeout"
    default_message = (
        "The image service took too long, so it may still do the work. "
        "It was not asked again, and nothing was stored. Repeating the request may buy a second picture."
    )


class GenerationInFlightException(ImageGenerationException):
    """A request with this Idempotency-Key is still being worked on."""

    code = "generation_in_flight"
    default_message = "A request with this Idempotency-Key is being worked on. Repeat it shortly to get its picture."


class GenerationUnknownException(ImageGenerationException):
    """The request with this Idempotency-Key may have been paid for; it is never repeated silently."""

    code = "generation_unknown"
    default_message = (
        "The earlier request with this Idempotency-Key ended without a known outcome and is not repeated. "
        "Use a new key to buy the picture, possibly for a second time."
    )


class GenerationDeletedException(ImageGenerationException):
    """The picture that this Idempotency-Key made has been deleted."""

    code = "generation_deleted"
    default_message = "The picture made under this Idempotency-Key was deleted. Use a new key to make another."


class IdempotencyMismatchException(ImageGenerationException):
    """This Idempotency-Key was used with another request."""

    code = "idempotency_mismatch"
    default_message = "This Idempotency-Key was used with a different request. Use a new key for a new request."


class RecordPendingException(ImageGenerationException):
    """The picture is paid for and on disk; its record is written once the database is back."""

    code = "record_pending"
    default_message = (
        "The picture was made and is safe, but the database cannot record it just now. Do not make it again: "
        "it will appear under the GUID in `image`, and the generation in `generation` will be stored."
    )
    retry_after_seconds = 10
