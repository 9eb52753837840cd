"""The exceptions of the data and service layers.

    PixyProxyException
    ├── ConfigurationException                 the server cannot start with these settings
    ├── AuthenticationException                the caller cannot be identified
    │   ├── CredentialMissingException
    │   ├── CredentialInvalidException
    │   └── IssuerUnavailableException         the keys of a trusted issuer cannot be fetched
    ├── ServerBusyException                    too many requests wait for the same resource
    ├── TooManyAtOnceException                 one client has too many expensive requests running
    ├── TooManyFailuresException               too many wrong credentials from an address or for a name
    ├── PermissionException                    a known caller lacks a scope
    │   ├── GrantException                     the grant exceeds the caller's own rights
    │   ├── TenantSuspendedException
    │   └── ModelNotAllowedException           the tenant or the key may not use the model
    ├── OAuthException                         an error response of RFC 6749 §5.2
    │   ├── OAuthRequestException              invalid_request
    │   ├── OAuthClientException               invalid_client
    │   ├── OAuthGrantException                invalid_grant
    │   ├── OAuthGrantTypeException            unsupported_grant_type
    │   ├── OAuthUnauthorizedException         unauthorized_client
    │   └── OAuthScopeException                invalid_scope
    ├── InvalidRequestException                a model failed revalidation
    │   └── InvalidCursorException
    ├── TenantException
    │   ├── TenantNotFoundException
    │   ├── TenantExistsException
    │   └── OwnTenantException                 an operator would lock themselves out
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
    │   ├── WebhookTargetException             an address that the server must not or cannot call
    │   └── WebhookLimitException
    ├── DatabaseException                      an unexpected database error
    │   ├── DatabaseUnavailableException       it cannot be reached, or the connection was lost
    │   ├── DatabaseBusyException              no slot or lock within the time limit
    │   ├── SearchTimeoutException             a search exceeded its time limit
    │   ├── SignInUnrecordedException          a failed sign-in could not be recorded
    │   └── SchemaException                    newer, half-applied or foreign schema
    └── ImageException
        ├── ImageNotFoundException             absent or not visible to the caller, indistinguishably
        ├── ImagePromptException               the prompt or an option is not acceptable
        │   └── InputPictureException          an input picture is invalid or not the caller's
        ├── ImageStorageException              the picture store failed
        │   ├── StorageFullException
        │   └── PictureMissingException        the image exists, its file does not
        └── ImageGenerationException           the generation yielded no picture
            ├── BudgetUnpricedException        a budget is set, but the model has no price
            ├── BudgetExceededException        the rest of the month's budget is not enough
            ├── ImageLimitException            more pictures than the rest of the minute's limit
            ├── QueueFullException             too many orders of the tenant are waiting
            ├── QueueTimeoutException          no upstream had a free slot in time
            ├── ModelUnknownException          no upstream offers the model
            ├── GenerationNotFoundException    absent or not the caller's
            ├── GenerationResolvedException    its outcome is already known
            ├── PromptRefusedException         the upstream refused the request (4xx)
            ├── UpstreamCredentialException    the upstream refuses PixyProxy's own key
            ├── UpstreamFundsException         PixyProxy's account with the upstream has no credit
            ├── UpstreamAddressException       no Images API at the upstream's base URL
            ├── UpstreamBusyException          the upstream's rate limit is exhausted (429)
            ├── UpstreamErrorException         the upstream reported a failure (5xx)
            ├── UpstreamUnreachableException   no connection: the upstream did nothing
            ├── UpstreamAnswerException        a complete answer without a picture
            │   └── PictureUnusableException   a picture that cannot be stored; the answer is retained
            ├── UpstreamSilentException        connection lost: it may have done the work
            │   └── UpstreamTimeoutException   timed out: it may have done the work
            ├── GenerationInFlightException    a request with this Idempotency-Key is running
            ├── GenerationUnknownException     a request with this key has an unknown outcome
            ├── GenerationCancelledException   cancelled by its client while it waited
            ├── GenerationDeletedException     the picture made with this key was deleted
            ├── IdempotencyMismatchException   the Idempotency-Key was used with another request
            └── RecordPendingException         the picture is safe but not recorded yet

Each class has a stable ``code`` for programs and a message that is safe to show to clients: no upstream
text, SQL or path. None knows HTTP; ``web/errors.py`` maps them. Modules are grouped by topic; import all of
them from here.
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
