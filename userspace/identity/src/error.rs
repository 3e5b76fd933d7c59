//! What can be wrong, split by whose fault it is: a certificate's ([`SvidError`]) or that of the
//! files that hold it ([`StoreError`]).

use crate::trust::Fingerprint;
use kedge_model::{SpiffeId, SpiffeIdError, TrustDomain};
use rustls_pki_types::UnixTime;
use std::io;
use std::path::PathBuf;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Why a certificate does not make its holder a node of the trust domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SvidError {
    #[error("certificate is not well-formed X.509")]
    Malformed,
    #[error("certificate expired at {}, it is {} now", rfc3339(*not_after), rfc3339(*now))]
    Expired { not_after: UnixTime, now: UnixTime },
    #[error("certificate is valid from {}, it is {} now", rfc3339(*not_before), rfc3339(*now))]
    NotYetValid { not_before: UnixTime, now: UnixTime },
    #[error("certificate is not signed by an authority of the trust bundle")]
    Untrusted,
    #[error("certificate with SHA-256 {0} is revoked")]
    RevokedLeaf(Fingerprint),
    #[error("{0} is revoked, with every certificate that it has")]
    RevokedNode(SpiffeId),
    #[error("certificate chain does not verify")]
    Chain(#[source] webpki::Error),
    #[error("certificate is a CA certificate, not a leaf")]
    IsCa,
    #[error("certificate does not allow {0}")]
    Usage(&'static str),
    #[error("certificate has {uris} URI and {others} other subject names, not exactly one URI")]
    SubjectNames { uris: usize, others: usize },
    #[error("certificate's URI is not a SPIFFE ID")]
    Id(#[source] SpiffeIdError),
    #[error("{0} is not a node's identity (/kedge/node/<name>)")]
    NotANode(SpiffeId),
    #[error("{id} is not of trust domain {expected}")]
    TrustDomain { id: SpiffeId, expected: TrustDomain },
    #[error("certificate says {found}, not {expected}")]
    NotUs { found: SpiffeId, expected: SpiffeId },
    #[error("private key does not belong to the certificate")]
    KeyMismatch,
}

impl SvidError {
    /// Short, stable name: a metric's label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Expired { .. } => "certificate-expired",
            Self::NotYetValid { .. } => "certificate-not-yet-valid",
            Self::Untrusted | Self::Chain(_) => "certificate-untrusted",
            Self::TrustDomain { .. } => "other-trust-domain",
            Self::RevokedLeaf(_) | Self::RevokedNode(_) => "certificate-revoked",
            Self::NotANode(_) => "not-a-node",
            Self::NotUs { .. } | Self::KeyMismatch => "certificate-not-ours",
            Self::Malformed
            | Self::IsCa
            | Self::Usage(_)
            | Self::SubjectNames { .. }
            | Self::Id(_) => "certificate-malformed",
        }
    }

    /// What the operator of the node that presents the certificate can do.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Expired { .. } => {
                "issue a new certificate: `kedge ca issue --dir CA --node NAME --out DIR`"
            }
            Self::NotYetValid { .. } => "set the clocks of both nodes, for example with chrony",
            Self::Untrusted | Self::Chain(_) => {
                "give both nodes the bundle.pem of the CA that issued the certificate"
            }
            Self::RevokedLeaf(_) => {
                "issue the node a new certificate with a new key; `svid.revoked` of the node that \
                 refuses names the file that lists this one"
            }
            Self::RevokedNode(_) => {
                "if the node should be believed again, take its line out of the file that \
                 `svid.revoked` names"
            }
            Self::TrustDomain { .. } => {
                "both nodes need the same `trust_domain`; issue the certificate with its CA"
            }
            Self::NotANode(_) | Self::NotUs { .. } => {
                "use the certificate from `kedge ca issue --node NAME` with the configured `node`"
            }
            Self::KeyMismatch => {
                "install the certificate and the key that were issued together; while both are \
                 being replaced, the next change of the files is read again"
            }
            Self::Malformed
            | Self::IsCa
            | Self::Usage(_)
            | Self::SubjectNames { .. }
            | Self::Id(_) => {
                "issue the certificate with `kedge ca issue`, or see docs/certificates.md for the \
                 form that another CA has to give it"
            }
        }
    }
}

/// Why a revocation list cannot be used. Nothing of it is skipped: a typing error must not leave
/// somebody believed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RevocationError {
    #[error(
        "line {line}: neither a SHA-256 fingerprint (64 hexadecimal digits) nor the SPIFFE ID of a node"
    )]
    Line { line: usize },
    #[error(
        "line {line}: {id} is a workload, which has no certificate here: write a [[deny]] in a policy document"
    )]
    NotANode { line: usize, id: SpiffeId },
    #[error("more than {0} lines: take out certificates that have expired")]
    TooMany(usize),
}

/// Why the CA or a node's SVID cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    #[error("{operation} {}", path.display())]
    File {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is larger than {limit} bytes", path.display())]
    TooLarge { path: PathBuf, limit: u64 },
    #[error(
        "{} exists: a CA key is never overwritten; choose another directory, or move the old CA \
         away", .0.display()
    )]
    CaExists(PathBuf),
    #[error("{} can be read by others: `chmod 600` it", .0.display())]
    KeyExposed(PathBuf),
    #[error("{what} in {origin} is not valid PEM of the expected kind")]
    Pem {
        what: &'static str,
        origin: &'static str,
    },
    #[error("{what}: more than {limit}")]
    TooMany { what: &'static str, limit: usize },
    #[error("the CA certificate does not name a trust domain: make the CA with `kedge ca init`")]
    NoTrustDomain,
    #[error("{id} is not of this CA's trust domain {ca}")]
    ForeignId { id: SpiffeId, ca: TrustDomain },
    #[error("a lifetime must be between 1 second and {max_days} days, and within the CA's own")]
    Lifetime { max_days: u64 },
    #[error("make a certificate")]
    Issue(#[source] rcgen::Error),
    #[error(transparent)]
    Svid(#[from] SvidError),
    #[error("revocation list")]
    Revocation(#[from] RevocationError),
}

/// RFC 3339 in UTC; a time beyond the calendar prints as seconds.
fn rfc3339(at: UnixTime) -> String {
    i64::try_from(at.as_secs())
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .and_then(|date| date.format(&Rfc3339).ok())
        .unwrap_or_else(|| format!("{} s after 1970", at.as_secs()))
}
