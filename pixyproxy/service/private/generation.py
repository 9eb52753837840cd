"""Generation: a prompt becomes a picture that stays.

One logical request buys at most one picture, and a picture that was bought is never lost:

1. One transaction claims the tenant's Idempotency-Key, if there is one, before anything is bought.
2. The upstream is asked once. The work runs in a task of its own, so a client that hangs up changes nothing.
3. The picture is made durable in the store; then one transaction records the image and settles the generation.
   The generation's row and the picture's file hold all that the record needs, so that ``recovery.py`` can
   finish what dies in between.
"""

import hashlib
import logging
import re
import uuid
from dataclasses import dataclass

from pixyproxy.core import clock
from pixyproxy.core.exceptions import (
    BudgetUnpricedException,
    DatabaseException,
    GenerationDeletedException,
    GenerationInFlightException,
    GenerationUnknownException,
    IdempotencyMismatchException,
    ImageGenerationException,
    ImageStorageException,
    ModelNotAllowedException,
    RecordPendingException,
    UpstreamAnswerException,
    UpstreamSilentException,
)
from pixyproxy.core.models.generation import Generation, GenerationGuid, GenerationStatus, NewGeneration
from pixyproxy.core.models.image import ImageGuid, ImagePrompt, NewImage, StoredImage
from pixyproxy.core.models.principal import Principal
from pixyproxy.data.database import Database, Repositories
from pixyproxy.data.store.local import EXTENSIONS, LocalStore
from pixyproxy.service.private.detached import DetachedTasks
from pixyproxy.service.private.upstream.picture import Upstream, UpstreamPicture
from pixyproxy.service.revalidation import revalidate

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GeneratedImage:
    """The image of a request; ``replayed`` if an earlier request with the same Idempotency-Key made it."""

    image: StoredImage
    replayed: bool


@dataclass(frozen=True)
class GenerationService:
    """Makes pictures for a principal."""

    database: Database
    store: LocalStore
    upstream: Upstream
    tasks: DetachedTasks
    default_model: str

    async def generate_image(
        self, incoming: ImagePrompt, *, principal: Principal, idempotency_key: str | None
    ) -> GeneratedImage:
        """Make one picture, keep it, and return its image.

        A repeated ``idempotency_key`` of the tenant returns the picture that it made already. Raises
        ``ImagePromptException``, ``ModelNotAllowedException`` and ``ImageGenerationException``;
        ``RecordPendingException`` means that the picture is safe and must not be made again.
        """
        prompt = revalidate(incoming)
        self._require_permitted(prompt, principal)
        # Nothing is bought that could not be kept.
        await self.store.check()
        return await self.tasks.run(self._claim_and_fulfil(prompt, principal, idempotency_key))

    def _require_permitted(self, prompt: ImagePrompt, principal: Principal) -> None:
        model = prompt.model or self.default_model
        if principal.allowed_models is not None and model not in principal.allowed_models:
            raise ModelNotAllowedException(context={"model": model})
        if principal.has_budget:
            # No limit is skipped because a price is unknown.
            raise BudgetUnpricedException

    async def _claim_and_fulfil(
        self, prompt: ImagePrompt, principal: Principal, idempotency_key: str | None
    ) -> GeneratedImage:
        claim = _new_generation(prompt, principal, idempotency_key, model=self.upstream.model_for(prompt))
        claimed = await self.database.write(lambda data: _claim_or_replay(data, claim))
        if isinstance(claimed, StoredImage):
            return GeneratedImage(image=claimed, replayed=True)
        picture = await self._draw(claimed, prompt)
        return GeneratedImage(image=await self._keep(claimed, picture), replayed=False)

    async def _draw(self, generation: Generation, prompt: ImagePrompt) -> UpstreamPicture:
        """Ask the upstream, once; every way out without a picture settles the generation."""
        try:
            return await self.upstream.draw(prompt)
        except ImageGenerationException as error:
            uncertain = isinstance(error, UpstreamSilentException | UpstreamAnswerException)
            await self._settle(generation, GenerationStatus.UNKNOWN if uncertain else GenerationStatus.FAILED)
            raise
        except BaseException:
            await self._settle(generation, GenerationStatus.UNKNOWN)
            raise

    async def _keep(self, generation: Generation, picture: UpstreamPicture) -> StoredImage:
        try:
            await self.store.write(generation.image_guid, picture.media_type, picture.content)
        except ImageStorageException:
            logger.exception("picture %s was paid for and could not be stored", generation.image_guid)
            # A file that is there although its folder could not be synced is left to recovery.
            if await self.store.find(generation.image_guid) is None:
                await self._settle(generation, GenerationStatus.UNKNOWN)
            raise
        try:
            return await self.database.write(lambda data: record_picture(data, generation, picture))
        except GenerationDeletedException:
            # Its tenant was removed meanwhile, so nobody can ever see it.
            await self.store.delete(generation.image_guid, picture.media_type)
            raise
        except DatabaseException as error:
            raise RecordPendingException(context={"image": generation.image_guid}) from error

    async def _settle(self, generation: Generation, status: GenerationStatus) -> None:
        """Note how a generation without a picture ended; recovery does it later where the database is away."""
        try:
            await self.database.write(
                lambda data: data.generations.settle(
                    generation.id, status, tenant_id=generation.tenant_id, at=clock.now()
                )
            )
        except DatabaseException:
            logger.warning("generation %s could not be settled as %s", generation.guid, status)


def record_picture(data: Repositories, generation: Generation, picture: UpstreamPicture) -> StoredImage:
    """Record a picture that is in the store and settle its generation; again is as good as once.

    Raises ``GenerationDeletedException`` where it was recorded, and deleted, meanwhile.
    """
    image = _new_image(generation, picture)
    tenant_id = generation.tenant_id
    if data.generations.settle(generation.id, GenerationStatus.STORED, tenant_id=tenant_id, at=image.updated_at):
        return data.images.record(image)
    recorded = data.images.get_of_generation(generation.id, tenant_id=tenant_id)
    if recorded is None:
        raise GenerationDeletedException
    return recorded


def _claim_or_replay(data: Repositories, claim: NewGeneration) -> Generation | StoredImage:
    """The new generation, or the image that its Idempotency-Key made before."""
    claimed = data.generations.claim(claim)
    if claimed is not None:
        return claimed
    earlier = data.generations.get_by_idempotency_key(claim.idempotency_key or "", tenant_id=claim.tenant_id)
    if earlier is None:
        # It failed and set its key free since the claim: the next attempt will win.
        raise GenerationInFlightException
    if earlier.fingerprint != claim.fingerprint:
        raise IdempotencyMismatchException
    if earlier.status is GenerationStatus.CALLING:
        raise GenerationInFlightException
    if earlier.status is GenerationStatus.UNKNOWN:
        raise GenerationUnknownException
    image = data.images.get_of_generation(earlier.id, tenant_id=claim.tenant_id)
    if image is None:
        raise GenerationDeletedException
    return image


def _new_generation(
    prompt: ImagePrompt, principal: Principal, idempotency_key: str | None, *, model: str
) -> NewGeneration:
    moment = clock.now()
    return NewGeneration(
        guid=GenerationGuid(str(uuid.uuid4())),
        tenant_id=principal.tenant_id,
        idempotency_key=idempotency_key,
        fingerprint=hashlib.sha256(prompt.model_dump_json(exclude_none=True).encode()).hexdigest(),
        status=GenerationStatus.CALLING,
        image_guid=ImageGuid(str(uuid.uuid4())),
        prompt=prompt.prompt,
        filename=prompt.filename,
        visibility=prompt.visibility or principal.default_visibility,
        model=model,
        subject=principal.subject,
        created_at=moment,
        updated_at=moment,
    )


def _new_image(generation: Generation, picture: UpstreamPicture) -> NewImage:
    moment = clock.now()
    guid = generation.image_guid
    return NewImage(
        guid=guid,
        tenant_id=generation.tenant_id,
        generation_id=generation.id,
        filename=generation.filename or _filename(generation.prompt, guid, EXTENSIONS[picture.media_type]),
        prompt=generation.prompt,
        visibility=generation.visibility,
        media_type=picture.media_type,
        byte_size=len(picture.content),
        sha256=picture.sha256,
        width=picture.width,
        height=picture.height,
        model=generation.model,
        created_at=moment,
        updated_at=moment,
    )


def _filename(prompt: str, guid: ImageGuid, extension: str) -> str:
    """A name that says what is in the picture and that no two pictures share: ``a-red-fox-1b2c3d4e.png``."""
    words = re.findall(r"[a-z0-9]+", prompt[:200].lower())
    slug = "-".join(words)[:60].strip("-") or "image"
    return f"{slug}-{guid[:8]}{extension}"
