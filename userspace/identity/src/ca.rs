//! The embedded CA: one key in one place, leaves for nodes and workloads.

use crate::error::{StoreError, SvidError};
use crate::files::{self, PRIVATE, PUBLIC, SvidPaths};
use crate::limits::{BACKDATE, CA_LIFETIME, LEAF_LIFETIME_MAX};
use crate::svid::require_key_of;
use crate::verify;
use kedge_model::{SpiffeId, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SubjectPublicKeyInfo,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use std::path::Path;
use std::time::Duration;
use time::OffsetDateTime;
use x509_parser::extensions::GeneralName;
use zeroize::Zeroizing;

const CERTIFICATE_FILE: &str = "ca.pem";
const KEY_FILE: &str = "ca.key";
/// tcg-kp-AIKCertificate (TCG EK Credential Profile): the key of a TPM that signs quotes.
const AK_USAGE: [u64; 5] = [2, 23, 133, 8, 3];

/// A certificate authority of one trust domain. Its key (ECDSA P-256) never leaves `ca.key`.
pub struct Ca {
    trust_domain: TrustDomain,
    certificate_pem: String,
    not_after: UnixTime,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate of an AK: PEM. It says whose machine the key is in, and is no SVID.
pub struct IssuedAk {
    pub certificate_pem: String,
    pub not_after: UnixTime,
}

/// A leaf, its key and the bundle that verifies it, all PEM.
pub struct Issued {
    pub certificate_pem: String,
    pub key_pem: Zeroizing<String>,
    pub bundle_pem: String,
    pub not_after: UnixTime,
}

impl Ca {
    /// Makes a CA in `dir`: `ca.key` (0600) and `ca.pem`.
    ///
    /// # Errors
    /// When there is a CA in `dir` already, or the files cannot be written.
    pub fn init(dir: &Path, trust_domain: &TrustDomain, now: UnixTime) -> Result<Self, StoreError> {
        let key = KeyPair::generate().map_err(StoreError::Issue)?;
        let key_pem = Zeroizing::new(key.serialize_pem());
        let certificate = ca_params(trust_domain, now)
            .and_then(|params| params.self_signed(&key))
            .map_err(StoreError::Issue)?;
        files::create_dir(dir)?;
        files::write_new(&dir.join(KEY_FILE), key_pem.as_bytes(), PRIVATE)?;
        files::write_new(
            &dir.join(CERTIFICATE_FILE),
            certificate.pem().as_bytes(),
            PUBLIC,
        )?;
        Self::parse(&certificate.pem(), &key_pem)
    }

    /// Opens the CA that [`Ca::init`] made in `dir`.
    ///
    /// # Errors
    /// When a file is missing or damaged, the key is not the certificate's, or others may read it.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        let key_path = dir.join(KEY_FILE);
        files::require_private(&key_path)?;
        let key = Zeroizing::new(files::read(&key_path)?);
        let certificate = files::read(&dir.join(CERTIFICATE_FILE))?;
        let not_pem = |what, origin| StoreError::Pem { what, origin };
        Self::parse(
            std::str::from_utf8(&certificate).map_err(|_| not_pem("certificate", "ca.pem"))?,
            std::str::from_utf8(&key).map_err(|_| not_pem("private key", "ca.key"))?,
        )
    }

    fn parse(certificate_pem: &str, key_pem: &str) -> Result<Self, StoreError> {
        let certificate =
            CertificateDer::from_pem_slice(certificate_pem.as_bytes()).map_err(|_| {
                StoreError::Pem {
                    what: "certificate",
                    origin: "ca.pem",
                }
            })?;
        let key =
            PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|_| StoreError::Pem {
                what: "private key",
                origin: "ca.key",
            })?;
        require_key_of(&certificate, &key)?;
        let parsed = verify::parse(&certificate)?;
        let names = parsed
            .subject_alternative_name()
            .map_err(|_| SvidError::Malformed)?;
        let trust_domain = names
            .and_then(|san| san.value.general_names.iter().find_map(trust_domain_of))
            .ok_or(StoreError::NoTrustDomain)?;
        let pair = KeyPair::try_from(&key).map_err(StoreError::Issue)?;
        Ok(Self {
            trust_domain,
            certificate_pem: certificate_pem.to_owned(),
            not_after: verify::not_after(&parsed),
            issuer: Issuer::from_ca_cert_der(&certificate, pair).map_err(StoreError::Issue)?,
        })
    }

    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The trust bundle of this CA: its own certificate.
    #[must_use]
    pub fn bundle_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Issues a leaf for `id` with a new key, valid from five minutes ago until `lifetime` from
    /// `now`.
    ///
    /// # Errors
    /// When `id` is of another trust domain, or the leaf would outlive the CA or the limit.
    pub fn issue(
        &self,
        id: &SpiffeId,
        lifetime: Duration,
        now: UnixTime,
    ) -> Result<Issued, StoreError> {
        self.require_own(id)?;
        let not_after = self.end_of(lifetime, now)?;
        let key = KeyPair::generate().map_err(StoreError::Issue)?;
        let certificate = leaf_params(id, now, not_after)
            .and_then(|params| params.signed_by(&key, &self.issuer))
            .map_err(StoreError::Issue)?;
        Ok(Issued {
            certificate_pem: certificate.pem(),
            key_pem: Zeroizing::new(key.serialize_pem()),
            bundle_pem: self.certificate_pem.clone(),
            not_after,
        })
    }

    /// Certifies the key of a TPM for the node whose machine has it. Whether it has is for the caller
    /// to find out first (docs/attestation.md, "Enrolment"). `public_key` is DER of the
    /// SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// When `node` is no node of this trust domain, the key is not readable, or the certificate would
    /// outlive the CA or the limit.
    pub fn issue_ak(
        &self,
        node: &SpiffeId,
        public_key: &[u8],
        lifetime: Duration,
        now: UnixTime,
    ) -> Result<IssuedAk, StoreError> {
        self.require_own(node)?;
        if node.node_name().is_none() {
            return Err(SvidError::NotANode(node.clone()).into());
        }
        let not_after = self.end_of(lifetime, now)?;
        let key = SubjectPublicKeyInfo::from_der(public_key).map_err(StoreError::Issue)?;
        let certificate = ak_params(node, now, not_after)
            .and_then(|params| params.signed_by(&key, &self.issuer))
            .map_err(StoreError::Issue)?;
        Ok(IssuedAk {
            certificate_pem: certificate.pem(),
            not_after,
        })
    }

    fn require_own(&self, id: &SpiffeId) -> Result<(), StoreError> {
        match id.trust_domain() == self.trust_domain {
            true => Ok(()),
            false => Err(StoreError::ForeignId {
                id: id.clone(),
                ca: self.trust_domain.clone(),
            }),
        }
    }

    fn end_of(&self, lifetime: Duration, now: UnixTime) -> Result<UnixTime, StoreError> {
        let refused = StoreError::Lifetime {
            max_days: LEAF_LIFETIME_MAX.as_secs() / 86_400,
        };
        if lifetime < Duration::from_secs(1) || lifetime > LEAF_LIFETIME_MAX {
            return Err(refused);
        }
        let end = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + lifetime);
        if end > self.not_after {
            Err(refused)
        } else {
            Ok(end)
        }
    }
}

impl Issued {
    /// Writes the three files, each by rename; the key with mode 0600. A daemon that reads between
    /// two renames finds a key that does not match, says so, and reads again at the last one.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, paths: &SvidPaths) -> Result<(), StoreError> {
        files::replace(&paths.bundle, self.bundle_pem.as_bytes(), PUBLIC)?;
        files::replace(&paths.key, self.key_pem.as_bytes(), PRIVATE)?;
        files::replace(&paths.certificate, self.certificate_pem.as_bytes(), PUBLIC)
    }
}

fn ca_params(trust_domain: &TrustDomain, now: UnixTime) -> Result<CertificateParams, rcgen::Error> {
    let end = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs()) + CA_LIFETIME);
    let mut params = params(&format!("spiffe://{trust_domain}"), now, end)?;
    params
        .distinguished_name
        .push(DnType::CommonName, "kedge CA");
    // The CA signs leaves only: a path length of zero leaves no room for a CA below it.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn leaf_params(
    id: &SpiffeId,
    now: UnixTime,
    not_after: UnixTime,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = params(id.as_str(), now, not_after)?;
    // SPIFFE clients want BasicConstraints to be there and to say no.
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// Neither serverAuth nor clientAuth: no peer takes it for an SVID.
fn ak_params(
    node: &SpiffeId,
    now: UnixTime,
    not_after: UnixTime,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = leaf_params(node, now, not_after)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Other(AK_USAGE.to_vec())];
    Ok(params)
}

fn params(
    uri: &str,
    now: UnixTime,
    not_after: UnixTime,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "kedge");
    params.not_before = date(now.as_secs().saturating_sub(BACKDATE.as_secs()));
    params.not_after = date(not_after.as_secs());
    Ok(params)
}

/// Certificates end in the year 9999 at the latest (RFC 5280, 4.1.2.5).
fn date(unix_seconds: u64) -> OffsetDateTime {
    const LAST_SECOND_OF_9999: i64 = 253_402_300_799;
    let seconds = i64::try_from(unix_seconds)
        .unwrap_or(i64::MAX)
        .min(LAST_SECOND_OF_9999);
    OffsetDateTime::from_unix_timestamp(seconds).expect("within the years 1970 to 9999")
}

fn trust_domain_of(name: &GeneralName<'_>) -> Option<TrustDomain> {
    let GeneralName::URI(uri) = name else {
        return None;
    };
    TrustDomain::parse(uri.strip_prefix("spiffe://")?).ok()
}
