//! Halves of a link under fixed secrets, and in-memory pairs of sessions, for tests.
