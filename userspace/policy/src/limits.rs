//! Every bound of this crate, with its unit.

/// Documents in a policy folder.
pub const DOCUMENTS_MAX: usize = 1_000;
/// Bytes of one document.
pub const DOCUMENT_BYTES_MAX: u64 = 1 << 20;
/// `[[allow]]` and `[[deny]]` rules in all documents together.
pub const RULES_MAX: usize = 100_000;
/// `[[mode]]` rules in all documents together.
pub const MODE_RULES_MAX: usize = 10_000;
/// `[[records]]` rules in all documents together: each is looked at for each flow.
pub const RECORDS_RULES_MAX: usize = 1_000;
