"""Everything that the data and service layers raise.

    PixyProxyException
    ├── ConfigurationException                 the server cannot start with these settings
    ├── AuthenticationException                who is asking cannot be told
    │   ├── CredentialMissingException
    │   ├── CredentialInvalidException
    │   └── IssuerUnavailableException         the keys of a trusted issuer cannot be had
    ├── ServerBusyException                    too many wait for the same thing
    ├── TooManyAtOnceException                 one client has too many expensive requests under way
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
    │   ├── ApiKeyRevokedException
    │   └── ApiKeyLimitException
    ├── UserException
    │   ├── UserNotFoundException
    │   ├── UserExistsException
    │   └── UserLimitException
    ├── WebhookException
    │   ├── WebhookNotFoundException
    │   ├── WebhookTargetException             an address that the server must not, or cannot, call
    │   └── WebhookLimitException
    ├── DatabaseException                      the database answered with something unforeseen
    │   ├── DatabaseUnavailableException       it cannot be reached, or broke off
    │   ├── DatabaseBusyException              no slot, or a lock, in the time allowed
    │   ├── SearchTimeoutException             a search that would take too long
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
            ├── UpstreamFundsException         our account with the upstream has no credit left
            ├── UpstreamAddressException       nothing is at the upstream's base URL
            ├── UpstreamBusyException          the upstream's rate limit is used up (429)
            ├── UpstreamErrorException         the upstream said that it failed (5xx)
            ├── UpstreamUnreachableException   no connection: the upstream did nothing
            ├── UpstreamAnswerException        a whole answer, but no picture in it
            │   └── PictureUnusableException   a picture in it that cannot be stored; the answer is kept
            ├── UpstreamSilentException        cut off: it may have done the work
            │   └── UpstreamTimeoutException   out of time: likewise
            ├── GenerationInFlightException    the same Idempotency-Key is being worked on, or it has begun
            ├── GenerationUnknownException     the same Idempotency-Key ended without a known outcome
            ├── GenerationCancelledException   its client cancelled it while it waited
            ├── GenerationDeletedException     the picture made under this key was deleted since
            ├── IdempotencyMismatchException   the same Idempotency-Key with another request
            └── RecordPendingException         the picture is safe, its record waits for the database

Each class has a stable ``code`` for programs and a message that is safe to show to a client: no upstream
text, SQL or path. None of them knows HTTP; ``web/errors.py`` maps them. The modules are by theme, and this
one has all of them: import from here.
"""

from pixyproxy.core.exceptions.access import (
    AuthenticationException,
    CredentialInvalidException,
    CredentialMissingException,
    GrantException,
    IssuerUnavailableException,
    ModelNotAllowedException,
    PermissionException,
    TenantSuspendedException,
    TooManyFailuresException,
)
from pixyproxy.core.exceptions.accounts import (
    ApiKeyException,
    ApiKeyLimitException,
    ApiKeyNotFoundException,
    ApiKeyRevokedException,
    OwnTenantException,
    TenantException,
    TenantExistsException,
    TenantNotFoundException,
    UserException,
    UserExistsException,
    UserLimitException,
    UserNotFoundException,
)
from pixyproxy.core.exceptions.base import (
    ConfigurationException,
    PixyProxyException,
    ServerBusyException,
    TooManyAtOnceException,
)
from pixyproxy.core.exceptions.database import (
    DatabaseBusyException,
    DatabaseException,
    DatabaseUnavailableException,
    SchemaException,
    SearchTimeoutException,
    SignInUnrecordedException,
)
from pixyproxy.core.exceptions.generation import (
    BudgetExceededException,
    BudgetUnpricedException,
    GenerationCancelledException,
    GenerationDeletedException,
    GenerationInFlightException,
    GenerationNotFoundException,
    GenerationResolvedException,
    GenerationUnknownException,
    IdempotencyMismatchException,
    ImageGenerationException,
    ImageLimitException,
    ModelUnknownException,
    QueueFullException,
    QueueTimeoutException,
    RecordPendingException,
)
from pixyproxy.core.exceptions.images import (
    ImageException,
    ImageNotFoundException,
    ImagePromptException,
    ImageStorageException,
    InputPictureException,
    PictureMissingException,
    StorageFullException,
)
from pixyproxy.core.exceptions.oauth import (
    OAuthClientException,
    OAuthException,
    OAuthGrantException,
    OAuthGrantTypeException,
    OAuthRequestException,
    OAuthScopeException,
    OAuthUnauthorizedException,
)
from pixyproxy.core.exceptions.requests import (
    InvalidCursorException,
    InvalidRequestException,
)
from pixyproxy.core.exceptions.upstream import (
    PictureUnusableException,
    PromptRefusedException,
    UpstreamAddressException,
    UpstreamAnswerException,
    UpstreamBusyException,
    UpstreamCredentialException,
    UpstreamErrorException,
    UpstreamFundsException,
    UpstreamSilentException,
    UpstreamTimeoutException,
    UpstreamUnreachableException,
)
from pixyproxy.core.exceptions.webhooks import (
    WebhookException,
    WebhookLimitException,
    WebhookNotFoundException,
    WebhookTargetException,
)

__all__ = [
    "ApiKeyException",
    "ApiKeyLimitException",
    "ApiKeyNotFoundException",
    "ApiKeyRevokedException",
    "AuthenticationException",
    "BudgetExceededException",
    "BudgetUnpricedException",
    "ConfigurationException",
    "CredentialInvalidException",
    "CredentialMissingException",
    "DatabaseBusyException",
    "DatabaseException",
    "DatabaseUnavailableException",
    "GenerationCancelledException",
    "GenerationDeletedException",
    "GenerationInFlightException",
    "GenerationNotFoundException",
    "GenerationResolvedException",
    "GenerationUnknownException",
    "GrantException",
    "IdempotencyMismatchException",
    "ImageException",
    "ImageGenerationException",
    "ImageLimitException",
    "ImageNotFoundException",
    "ImagePromptException",
    "ImageStorageException",
    "InputPictureException",
    "InvalidCursorException",
    "InvalidRequestException",
    "IssuerUnavailableException",
    "ModelNotAllowedException",
    "ModelUnknownException",
    "OAuthClientException",
    "OAuthException",
    "OAuthGrantException",
    "OAuthGrantTypeException",
    "OAuthRequestException",
    "OAuthScopeException",
    "OAuthUnauthorizedException",
    "OwnTenantException",
    "PermissionException",
    "PictureMissingException",
    "PictureUnusableException",
    "PixyProxyException",
    "PromptRefusedException",
    "QueueFullException",
    "QueueTimeoutException",
    "RecordPendingException",
    "SchemaException",
    "SearchTimeoutException",
    "ServerBusyException",
    "SignInUnrecordedException",
    "StorageFullException",
    "TenantException",
    "TenantExistsException",
    "TenantNotFoundException",
    "TenantSuspendedException",
    "TooManyAtOnceException",
    "TooManyFailuresException",
    "UpstreamAddressException",
    "UpstreamAnswerException",
    "UpstreamBusyException",
    "UpstreamCredentialException",
    "UpstreamErrorException",
    "UpstreamFundsException",
    "UpstreamSilentException",
    "UpstreamTimeoutException",
    "UpstreamUnreachableException",
    "UserException",
    "UserExistsException",
    "UserLimitException",
    "UserNotFoundException",
    "WebhookException",
    "WebhookLimitException",
    "WebhookNotFoundException",
    "WebhookTargetException",
]
