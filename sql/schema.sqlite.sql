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

-- Running upgrade 0001 -> 0002

ALTER TABLE tenants ADD COLUMN status VARCHAR(16) NOT NULL DEFAULT 'active';

ALTER TABLE tenants ADD COLUMN images_per_minute INTEGER NULL;

ALTER TABLE tenants ADD COLUMN monthly_budget_micro_usd BIGINT NULL;

ALTER TABLE tenants ADD COLUMN allowed_models TEXT NULL;

ALTER TABLE api_keys ADD COLUMN allowed_models TEXT NULL;

ALTER TABLE api_keys ADD COLUMN images_per_minute INTEGER NULL;

ALTER TABLE api_keys ADD COLUMN last_used_at DATETIME NULL;

ALTER TABLE api_keys ADD COLUMN former_sha256 CHAR(64) NULL;

ALTER TABLE api_keys ADD COLUMN former_secret_until DATETIME NULL;

ALTER TABLE generations ADD COLUMN subject VARCHAR(255) NULL;

ALTER TABLE generations ADD COLUMN resolved_at DATETIME NULL;

CREATE INDEX generations_tenant ON generations (tenant_id, created_at);

CREATE TABLE users (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    guid VARCHAR(36) NOT NULL UNIQUE,
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    username VARCHAR(128) NOT NULL UNIQUE,
    password_hash VARCHAR(255) NOT NULL,
    role VARCHAR(16) NOT NULL,
    status VARCHAR(16) NOT NULL,
    created_at DATETIME NOT NULL,
    updated_at DATETIME NOT NULL,
    last_sign_in_at DATETIME NULL
);

CREATE TABLE refresh_tokens (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    token_sha256 CHAR(64) NOT NULL UNIQUE,
    session_guid VARCHAR(36) NOT NULL,
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    user_guid VARCHAR(36) NOT NULL,
    client_id VARCHAR(255) NULL,
    scopes VARCHAR(255) NOT NULL,
    created_at DATETIME NOT NULL,
    expires_at DATETIME NOT NULL,
    used_at DATETIME NULL,
    revoked_at DATETIME NULL
);

CREATE INDEX refresh_tokens_session ON refresh_tokens (session_guid);

CREATE INDEX refresh_tokens_user ON refresh_tokens (user_guid);

CREATE INDEX refresh_tokens_expiry ON refresh_tokens (expires_at);

CREATE TABLE revoked_tokens (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    token_id VARCHAR(64) NOT NULL UNIQUE,
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    expires_at DATETIME NOT NULL,
    revoked_at DATETIME NOT NULL
);

CREATE INDEX revoked_tokens_expiry ON revoked_tokens (expires_at);

CREATE TABLE audit_log (
    sequence INTEGER NOT NULL PRIMARY KEY,
    at DATETIME NOT NULL,
    actor_type VARCHAR(16) NOT NULL,
    actor VARCHAR(255) NOT NULL,
    actor_tenant_guid VARCHAR(36) NULL,
    action VARCHAR(32) NOT NULL,
    tenant_guid VARCHAR(36) NULL,
    target VARCHAR(255) NULL,
    address VARCHAR(64) NULL,
    request_id VARCHAR(255) NOT NULL,
    details TEXT NOT NULL,
    previous_sha256 CHAR(64) NOT NULL,
    entry_sha256 CHAR(64) NOT NULL
);

CREATE INDEX audit_log_tenant ON audit_log (tenant_guid, sequence);

CREATE INDEX audit_log_action ON audit_log (action, sequence);

CREATE TABLE audit_head (
    id INTEGER NOT NULL PRIMARY KEY,
    sequence BIGINT NOT NULL,
    entry_sha256 CHAR(64) NOT NULL
);

INSERT INTO audit_head (id, sequence, entry_sha256) VALUES (1, 0, '0000000000000000000000000000000000000000000000000000000000000000');

UPDATE alembic_version SET version_num='0002' WHERE alembic_version.version_num = '0001';

-- Running upgrade 0002 -> 0003

ALTER TABLE generations RENAME COLUMN image_guid TO image_guids;

ALTER TABLE generations ADD COLUMN terms TEXT NULL;

ALTER TABLE generations ADD COLUMN upstream VARCHAR(64) NULL;

ALTER TABLE generations ADD COLUMN lease_owner VARCHAR(36) NULL;

ALTER TABLE generations ADD COLUMN lease_until DATETIME NULL;

ALTER TABLE generations ADD COLUMN budget_month CHAR(7) NULL;

ALTER TABLE generations ADD COLUMN reserved_micro_usd BIGINT NULL;

ALTER TABLE generations ADD COLUMN cost_micro_usd BIGINT NULL;

ALTER TABLE generations ADD COLUMN image_count INTEGER NOT NULL DEFAULT 1;

ALTER TABLE generations ADD COLUMN answer TEXT NULL;

ALTER TABLE generations ADD COLUMN error TEXT NULL;

ALTER TABLE generations ADD COLUMN finished_at DATETIME NULL;

CREATE TABLE budgets (
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    month CHAR(7) NOT NULL,
    reserved_micro_usd BIGINT NOT NULL DEFAULT 0,
    spent_micro_usd BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, month)
);

UPDATE alembic_version SET version_num='0003' WHERE alembic_version.version_num = '0002';

-- Running upgrade 0003 -> 0004

CREATE TABLE webhooks (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    guid VARCHAR(36) NOT NULL UNIQUE,
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    url VARCHAR(2000) NOT NULL,
    events VARCHAR(255) NOT NULL,
    version INTEGER NOT NULL,
    former_secret_until DATETIME NULL,
    created_at DATETIME NOT NULL,
    disabled_at DATETIME NULL
);

CREATE INDEX webhooks_tenant ON webhooks (tenant_id);

CREATE TABLE webhook_deliveries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    guid VARCHAR(36) NOT NULL UNIQUE,
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    webhook_guid VARCHAR(36) NOT NULL,
    event VARCHAR(64) NOT NULL,
    payload TEXT NOT NULL,
    status VARCHAR(16) NOT NULL,
    attempts INTEGER NOT NULL,
    next_attempt_at DATETIME NULL,
    response_status INTEGER NULL,
    problem VARCHAR(64) NULL,
    created_at DATETIME NOT NULL,
    finished_at DATETIME NULL
);

CREATE INDEX webhook_deliveries_due ON webhook_deliveries (next_attempt_at, tenant_id);

CREATE INDEX webhook_deliveries_tenant ON webhook_deliveries (tenant_id, next_attempt_at);

CREATE INDEX webhook_deliveries_webhook ON webhook_deliveries (webhook_guid);

CREATE INDEX webhook_deliveries_age ON webhook_deliveries (created_at);

UPDATE alembic_version SET version_num='0004' WHERE alembic_version.version_num = '0003';

-- Running upgrade 0004 -> 0005

CREATE TABLE installation (
    id INTEGER NOT NULL PRIMARY KEY,
    secret_salt CHAR(32) NOT NULL,
    secret_verifier CHAR(64) NOT NULL,
    keys_revision BIGINT NOT NULL
);

CREATE TABLE signing_keys (
    kid VARCHAR(64) NOT NULL PRIMARY KEY,
    sealed_pem TEXT NULL,
    signs_from DATETIME NOT NULL,
    retires_at DATETIME NULL
);

UPDATE alembic_version SET version_num='0005' WHERE alembic_version.version_num = '0004';

-- Running upgrade 0005 -> 0006

CREATE TABLE processes (
    guid VARCHAR(36) NOT NULL PRIMARY KEY,
    host VARCHAR(255) NOT NULL,
    pid INTEGER NOT NULL,
    serves BOOLEAN NOT NULL,
    executes BOOLEAN NOT NULL,
    redis BOOLEAN NOT NULL,
    started_at DATETIME NOT NULL,
    seen_at DATETIME NOT NULL
);

CREATE INDEX processes_seen ON processes (seen_at);

UPDATE alembic_version SET version_num='0006' WHERE alembic_version.version_num = '0005';

-- Running upgrade 0006 -> 0007

ALTER TABLE generations ADD COLUMN upstream_id INTEGER NULL;

ALTER TABLE generations ADD COLUMN started_at DOUBLE NULL;

ALTER TABLE generations ADD COLUMN place_until DOUBLE NULL;

ALTER TABLE generations ADD COLUMN excluded VARCHAR(100) NOT NULL DEFAULT '';

ALTER TABLE generations ADD COLUMN version INTEGER NOT NULL DEFAULT 0;

ALTER TABLE generations ADD COLUMN content CHAR(64) NULL;

ALTER TABLE generations ADD COLUMN follower VARCHAR(36) NULL;

ALTER TABLE generations ADD COLUMN lost_at DOUBLE NULL;

ALTER TABLE generations ADD COLUMN adopted_at DOUBLE NULL;

ALTER TABLE budgets ADD COLUMN decisions BIGINT NOT NULL DEFAULT 0;

CREATE INDEX generations_queue ON generations (status, tenant_id, model, excluded, id);

CREATE INDEX generations_place ON generations (upstream_id, place_until);

CREATE INDEX generations_content ON generations (content, id);

CREATE TABLE upstreams (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name VARCHAR(64) NOT NULL UNIQUE,
    revision DOUBLE NOT NULL,
    weight INTEGER NOT NULL,
    concurrency INTEGER NOT NULL,
    requests_per_minute INTEGER NULL,
    share DOUBLE NOT NULL DEFAULT 0,
    paused_until DOUBLE NOT NULL DEFAULT 0,
    failed_at DOUBLE NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    unusable INTEGER NOT NULL DEFAULT 0,
    mean_seconds DOUBLE NULL
);

CREATE TABLE upstream_starts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    upstream_id INTEGER NOT NULL,
    started_at DOUBLE NOT NULL
);

CREATE INDEX upstream_starts_time ON upstream_starts (upstream_id, started_at);

CREATE TABLE tenant_turns (
    tenant_id INTEGER NOT NULL REFERENCES tenants (id),
    upstream_id INTEGER NOT NULL,
    began_at DOUBLE NOT NULL,
    PRIMARY KEY (tenant_id, upstream_id)
);

UPDATE alembic_version SET version_num='0007' WHERE alembic_version.version_num = '0006';
