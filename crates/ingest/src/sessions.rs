//! The kinds of database sessions that gates, files, definitions and the outbox use, and
//! what each is set to. What works beside them has kinds of its own.

use sluice_service::postgres::Session;

/// What every gate session is set to: durable commits, and no lock held or
/// waited for longer than the callers of others can bear.
pub const GATE: Session = Session {
    application_name: "sluice-ingest-gate",
    role: None,
    parameters: &[
        ("synchronous_commit", "on"),
        ("lock_timeout", "1s"),
        ("idle_in_transaction_session_timeout", "2s"),
        ("statement_timeout", "5s"),
        // Plans are pinned: every statement is an index look-up by keys.
        ("plan_cache_mode", "force_generic_plan"),
        ("enable_seqscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
        ("enable_bitmapscan", "off"),
        ("enable_material", "off"),
        ("jit", "off"),
    ],
};

/// Sessions for definitions.
pub const DEFINITIONS: Session = Session {
    application_name: "sluice-ingest",
    role: None,
    parameters: &[
        ("synchronous_commit", "on"),
        ("lock_timeout", "2s"),
        ("statement_timeout", "10s"),
        ("idle_in_transaction_session_timeout", "5s"),
        ("jit", "off"),
    ],
};

/// Sessions for the outbox's upkeep: what they write may be lost in a crash at
/// the cost of a repeated hand-over, so nobody waits for the disk.
pub const OUTBOX: Session = Session {
    application_name: "sluice-ingest-outbox",
    role: None,
    parameters: &[
        ("synchronous_commit", "off"),
        ("lock_timeout", "2s"),
        ("statement_timeout", "10s"),
        ("idle_in_transaction_session_timeout", "5s"),
        // The outbox is empty or full, and statistics are always late.
        ("plan_cache_mode", "force_generic_plan"),
        ("enable_seqscan", "off"),
        ("jit", "off"),
    ],
};

/// Sessions for uploads of files: durable, and with plans that are pinned like the
/// gate's.
pub const FILES: Session = Session {
    application_name: "sluice-ingest-files",
    role: None,
    parameters: &[
        ("synchronous_commit", "on"),
        ("lock_timeout", "2s"),
        ("statement_timeout", "10s"),
        ("idle_in_transaction_session_timeout", "5s"),
        ("plan_cache_mode", "force_generic_plan"),
        ("enable_seqscan", "off"),
        ("enable_bitmapscan", "off"),
        ("jit", "off"),
    ],
};
