//! What can be wrong with a policy: always the writer's fault, so every error says where.

use kedge_model::SpiffeIdError;
use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("read policy {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("policy {} is larger than {limit} bytes", path.display())]
    TooLarge { path: PathBuf, limit: u64 },
    /// Not TOML, an unknown or missing key, or a value of the wrong form.
    #[error("policy {document} line {line}: {}", cause.message())]
    Syntax {
        document: String,
        line: usize,
        cause: Box<toml::de::Error>,
    },
    /// Well-formed, but it says nothing that can be obeyed.
    #[error("policy {document} line {line}: {problem}")]
    Content {
        document: String,
        line: usize,
        problem: Problem,
    },
    #[error("more than {limit} {what} in all policies together")]
    TooMany { what: &'static str, limit: usize },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    #[error("{pattern:?} is not a SPIFFE ID, nor one whose last segment is '*': {cause}")]
    Pattern {
        pattern: String,
        cause: SpiffeIdError,
    },
    #[error("{0:?} is not a port from 1 to 65535, nor a range such as \"8000-8099\"")]
    Ports(String),
    #[error("`ports` is empty: name ports, or leave it out to mean every port")]
    NoPorts,
    #[error("a [[mode]] needs either `workload` or `prefix`, not both")]
    ModeScope,
    #[error("`default_mode` is said here and in {0}: say it once")]
    DefaultTwice(String),
}
