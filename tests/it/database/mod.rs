//! What the databases are made of, and what they keep whoever asks.

mod durability;
mod migrations;
mod publications;
mod walls;
