-- Rendered from sql/migrations by `make schema`; do not edit.

CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL,
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

-- Running upgrade  -> 0001

CREATE TABLE tenants (
    id INT AUTO_INCREMENT PRIMARY KEY,
    guid VARCHAR(36) NOT NULL UNIQUE,
    name VARCHAR(255) COLLATE utf8mb4_bin NOT NULL UNIQUE,
    default_visibility VARCHAR(16) NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE api_keys (
    id INT AUTO_INCREMENT PRIMARY KEY,
    guid VARCHAR(36) NOT NULL UNIQUE,
    tenant_id INT NOT NULL,
    key_id VARCHAR(16) CHARACTER SET ascii COLLATE ascii_bin NOT NULL UNIQUE,
    secret_sha256 CHAR(64) NOT NULL,
    name VARCHAR(255) NOT NULL,
    scopes VARCHAR(255) NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    expires_at TIMESTAMP NULL,
    revoked_at TIMESTAMP NULL,
    FOREIGN KEY (tenant_id) REFERENCES tenants (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE generations (
    id INT AUTO_INCREMENT PRIMARY KEY,
    guid VARCHAR(36) NOT NULL UNIQUE,
    tenant_id INT NOT NULL,
    idempotency_key VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NULL,
    fingerprint CHAR(64) NOT NULL,
    status VARCHAR(16) NOT NULL,
    image_guid VARCHAR(36) NOT NULL,
    prompt MEDIUMTEXT NOT NULL,
    filename VARCHAR(255) NULL,
    visibility VARCHAR(16) NOT NULL,
    model VARCHAR(128) NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
    UNIQUE KEY generations_idempotency (tenant_id, idempotency_key),
    KEY generations_status (status, created_at),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE images (
    id INT AUTO_INCREMENT PRIMARY KEY,
    guid VARCHAR(36) NOT NULL UNIQUE,
    filename VARCHAR(255) NOT NULL,
    prompt MEDIUMTEXT NOT NULL,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
    updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
    tenant_id INT NOT NULL,
    generation_id INT NOT NULL,
    visibility VARCHAR(16) NOT NULL,
    media_type VARCHAR(64) NOT NULL,
    byte_size BIGINT NOT NULL,
    sha256 CHAR(64) NOT NULL,
    width INT NOT NULL,
    height INT NOT NULL,
    model VARCHAR(128) NOT NULL,
    KEY images_tenant (tenant_id, id),
    KEY images_visibility (visibility, id),
    KEY images_generation (generation_id),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id),
    FOREIGN KEY (generation_id) REFERENCES generations (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

INSERT INTO alembic_version (version_num) VALUES ('0001');

-- Running upgrade 0001 -> 0002

ALTER TABLE tenants
    ADD COLUMN status VARCHAR(16) NOT NULL DEFAULT 'active',
    ADD COLUMN images_per_minute INT NULL,
    ADD COLUMN monthly_budget_micro_usd BIGINT NULL,
    ADD COLUMN allowed_models TEXT NULL;

ALTER TABLE api_keys
    MODIFY COLUMN expires_at DATETIME NULL,
    ADD COLUMN allowed_models TEXT NULL,
    ADD COLUMN images_per_minute INT NULL,
    ADD COLUMN last_used_at DATETIME NULL,
    ADD COLUMN former_sha256 CHAR(64) NULL,
    ADD COLUMN former_secret_until DATETIME NULL;

ALTER TABLE generations
    ADD COLUMN subject VARCHAR(255) NULL,
    ADD COLUMN resolved_at DATETIME NULL,
    ADD KEY generations_tenant (tenant_id, created_at);

CREATE TABLE users (
    id INT AUTO_INCREMENT PRIMARY KEY,
    guid VARCHAR(36) NOT NULL UNIQUE,
    tenant_id INT NOT NULL,
    username VARCHAR(128) CHARACTER SET ascii COLLATE ascii_bin NOT NULL UNIQUE,
    password_hash VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    role VARCHAR(16) NOT NULL,
    status VARCHAR(16) NOT NULL,
    created_at DATETIME NOT NULL,
    updated_at DATETIME NOT NULL,
    last_sign_in_at DATETIME NULL,
    FOREIGN KEY (tenant_id) REFERENCES tenants (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE refresh_tokens (
    id INT AUTO_INCREMENT PRIMARY KEY,
    token_sha256 CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL UNIQUE,
    session_guid VARCHAR(36) NOT NULL,
    tenant_id INT NOT NULL,
    user_guid VARCHAR(36) NOT NULL,
    client_id VARCHAR(255) CHARACTER SET ascii COLLATE ascii_bin NULL,
    scopes VARCHAR(255) NOT NULL,
    created_at DATETIME NOT NULL,
    expires_at DATETIME NOT NULL,
    used_at DATETIME NULL,
    revoked_at DATETIME NULL,
    KEY refresh_tokens_session (session_guid),
    KEY refresh_tokens_user (user_guid),
    KEY refresh_tokens_expiry (expires_at),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE revoked_tokens (
    id INT AUTO_INCREMENT PRIMARY KEY,
    token_id VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL UNIQUE,
    tenant_id INT NOT NULL,
    expires_at DATETIME NOT NULL,
    revoked_at DATETIME NOT NULL,
    KEY revoked_tokens_expiry (expires_at),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE audit_log (
    sequence BIGINT NOT NULL PRIMARY KEY,
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
    entry_sha256 CHAR(64) NOT NULL,
    KEY audit_log_tenant (tenant_guid, sequence),
    KEY audit_log_action (action, sequence)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE audit_head (
    id INT NOT NULL PRIMARY KEY,
    sequence BIGINT NOT NULL,
    entry_sha256 CHAR(64) NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

INSERT INTO audit_head (id, sequence, entry_sha256) VALUES (1, 0, '0000000000000000000000000000000000000000000000000000000000000000');

UPDATE alembic_version SET version_num='0002' WHERE alembic_version.version_num = '0001';

-- Running upgrade 0002 -> 0003

ALTER TABLE generations
    CHANGE COLUMN image_guid image_guids VARCHAR(400) NOT NULL,
    ADD COLUMN terms MEDIUMTEXT NULL,
    ADD COLUMN upstream VARCHAR(64) NULL,
    ADD COLUMN lease_owner VARCHAR(36) NULL,
    ADD COLUMN lease_until DATETIME NULL,
    ADD COLUMN budget_month CHAR(7) NULL,
    ADD COLUMN reserved_micro_usd BIGINT NULL,
    ADD COLUMN cost_micro_usd BIGINT NULL,
    ADD COLUMN image_count INT NOT NULL DEFAULT 1,
    ADD COLUMN answer MEDIUMTEXT NULL,
    ADD COLUMN error TEXT NULL,
    ADD COLUMN finished_at DATETIME NULL;

CREATE TABLE budgets (
    tenant_id INT NOT NULL,
    month CHAR(7) NOT NULL,
    reserved_micro_usd BIGINT NOT NULL DEFAULT 0,
    spent_micro_usd BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, month),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

UPDATE alembic_version SET version_num='0003' WHERE alembic_version.version_num = '0002';

-- Running upgrade 0003 -> 0004

CREATE TABLE webhooks (
    id INT AUTO_INCREMENT PRIMARY KEY,
    guid VARCHAR(36) NOT NULL UNIQUE,
    tenant_id INT NOT NULL,
    url VARCHAR(2000) NOT NULL,
    events VARCHAR(255) NOT NULL,
    version INT NOT NULL,
    former_secret_until DATETIME NULL,
    created_at DATETIME NOT NULL,
    disabled_at DATETIME NULL,
    KEY webhooks_tenant (tenant_id),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE webhook_deliveries (
    id BIGINT AUTO_INCREMENT PRIMARY KEY,
    guid VARCHAR(36) NOT NULL UNIQUE,
    tenant_id INT NOT NULL,
    webhook_guid VARCHAR(36) NOT NULL,
    event VARCHAR(64) NOT NULL,
    payload MEDIUMTEXT NOT NULL,
    status VARCHAR(16) NOT NULL,
    attempts INT NOT NULL,
    next_attempt_at DATETIME NULL,
    response_status INT NULL,
    problem VARCHAR(64) NULL,
    created_at DATETIME NOT NULL,
    finished_at DATETIME NULL,
    KEY webhook_deliveries_due (next_attempt_at, tenant_id),
    KEY webhook_deliveries_tenant (tenant_id, next_attempt_at),
    KEY webhook_deliveries_webhook (webhook_guid),
    KEY webhook_deliveries_age (created_at),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

UPDATE alembic_version SET version_num='0004' WHERE alembic_version.version_num = '0003';

-- Running upgrade 0004 -> 0005

CREATE TABLE installation (
    id INT NOT NULL PRIMARY KEY,
    secret_salt CHAR(32) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    secret_verifier CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    keys_revision BIGINT NOT NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE signing_keys (
    kid VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL PRIMARY KEY,
    sealed_pem TEXT CHARACTER SET ascii COLLATE ascii_bin NULL,
    signs_from DATETIME NOT NULL,
    retires_at DATETIME NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

UPDATE alembic_version SET version_num='0005' WHERE alembic_version.version_num = '0004';

-- Running upgrade 0005 -> 0006

CREATE TABLE processes (
    guid VARCHAR(36) NOT NULL PRIMARY KEY,
    host VARCHAR(255) NOT NULL,
    pid INT NOT NULL,
    serves BOOLEAN NOT NULL,
    executes BOOLEAN NOT NULL,
    redis BOOLEAN NOT NULL,
    started_at DATETIME NOT NULL,
    seen_at DATETIME NOT NULL,
    KEY processes_seen (seen_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

UPDATE alembic_version SET version_num='0006' WHERE alembic_version.version_num = '0005';

-- Running upgrade 0006 -> 0007

ALTER TABLE generations
    MODIFY COLUMN model VARCHAR(128) COLLATE utf8mb4_bin NOT NULL,
    ADD COLUMN upstream_id INT NULL,
    ADD COLUMN started_at DOUBLE NULL,
    ADD COLUMN place_until DOUBLE NULL,
    ADD COLUMN excluded VARCHAR(100) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT '',
    ADD COLUMN version INT NOT NULL DEFAULT 0,
    ADD COLUMN content CHAR(64) CHARACTER SET ascii COLLATE ascii_bin NULL,
    ADD COLUMN follower VARCHAR(36) CHARACTER SET ascii COLLATE ascii_bin NULL,
    ADD COLUMN lost_at DOUBLE NULL,
    ADD COLUMN adopted_at DOUBLE NULL,
    ADD KEY generations_queue (status, tenant_id, model, excluded, id),
    ADD KEY generations_place (upstream_id, place_until),
    ADD KEY generations_content (content, id);

ALTER TABLE budgets ADD COLUMN decisions BIGINT NOT NULL DEFAULT 0;

CREATE TABLE upstreams (
    id INT AUTO_INCREMENT PRIMARY KEY,
    name VARCHAR(64) CHARACTER SET ascii COLLATE ascii_bin NOT NULL UNIQUE,
    revision DOUBLE NOT NULL,
    weight INT NOT NULL,
    concurrency INT NOT NULL,
    requests_per_minute INT NULL,
    share DOUBLE NOT NULL DEFAULT 0,
    paused_until DOUBLE NOT NULL DEFAULT 0,
    failed_at DOUBLE NOT NULL DEFAULT 0,
    failures INT NOT NULL DEFAULT 0,
    unusable INT NOT NULL DEFAULT 0,
    mean_seconds DOUBLE NULL
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE upstream_starts (
    id BIGINT AUTO_INCREMENT PRIMARY KEY,
    upstream_id INT NOT NULL,
    started_at DOUBLE NOT NULL,
    KEY upstream_starts_time (upstream_id, started_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

CREATE TABLE tenant_turns (
    tenant_id INT NOT NULL,
    upstream_id INT NOT NULL,
    began_at DOUBLE NOT NULL,
    PRIMARY KEY (tenant_id, upstream_id),
    FOREIGN KEY (tenant_id) REFERENCES tenants (id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_unicode_ci;

UPDATE alembic_version SET version_num='0007' WHERE alembic_version.version_num = '0006';
