-- Rendered from sql/migrations by `make schema`; do not edit.

CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

-- Running upgrade  -> 0001

CREATE TABLE tenants (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    guid VARCHAR(36) NOT NULL UNIQUE,
    name VARCHAR(255) NOT NULL UNIQUE,
    default_visibility VARCHAR(16) NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE api_keys (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    guid VARCHAR(36) NOT NULL UNIQUE,
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    key_id VARCHAR(16) NOT NULL UNIQUE,
    secret_sha256 CHAR(64) NOT NULL,
    name VARCHAR(255) NOT NULL,
    scopes VARCHAR(255) NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    expires_at TIMESTAMP NULL,
    revoked_at TIMESTAMP NULL
);

CREATE TABLE generations (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    guid VARCHAR(36) NOT NULL UNIQUE,
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    idempotency_key VARCHAR(255) NULL,
    fingerprint CHAR(64) NOT NULL,
    status VARCHAR(16) NOT NULL,
    image_guid VARCHAR(36) NOT NULL,
    prompt TEXT NOT NULL,
    filename VARCHAR(255) NULL,
    visibility VARCHAR(16) NOT NULL,
    model VARCHAR(128) NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    UNIQUE (tenant_id, idempotency_key)
);

CREATE INDEX generations_status ON generations (status, created_at);

CREATE TABLE images (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    guid VARCHAR(36) NOT NULL UNIQUE,
    filename VARCHAR(255) NOT NULL,
    prompt TEXT NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    generation_id INTEGER NOT NULL REFERENCES generations (id),
    visibility VARCHAR(16) NOT NULL,
    media_type VARCHAR(64) NOT NULL,
    byte_size BIGINT NOT NULL,
    sha256 CHAR(64) NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    model VARCHAR(128) NOT NULL
);

CREATE INDEX images_tenant ON images (tenant_id, id);

CREATE INDEX images_visibility ON images (visibility, id);

CREATE INDEX images_generation ON images (generation_id);

INSERT INTO alembic_version (version_num) VALUES ('0001') RETURNING version_num;
