//! What a daemon brings to every link.

use crate::error::LinkError;
use crate::tls;
use crate::wire::{Attesting, InstanceId};
use kedge_identity::{NodeSvid, Trust};
use kedge_model::{SpiffeId, Suite, TrustDomain};
use kedge_record::Rekey;
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use std::sync::Arc;

/// Our SVID, whom we believe, our offers and instance. A new one is made whenever one of them changes; links
/// keep the one with which they were made.
pub struct LinkConfig {
    pub(crate) id: SpiffeId,
    pub(crate) trust_domain: TrustDomain,
    pub(crate) certified_key: Arc<CertifiedKey>,
    pub(crate) trust: Arc<Trust>,
    pub(crate) suites: Vec<Suite>,
    pub(crate) instance: InstanceId,
    pub(crate) successor_of: Option<InstanceId>,
    pub(crate) rekey: Rekey,
    pub(crate) attesting: Option<Attesting>,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl LinkConfig {
    /// `suites` are the record suites of flows, in order of preference; `instance` is random, new
    /// at each start of the daemon.
    ///
    /// # Errors
    /// When `suites` is empty, or the crypto library does not take the SVID's key.
    pub fn new(svid: &NodeSvid, suites: &[Suite], instance: InstanceId) -> Result<Self, LinkError> {
        if suites.is_empty() {
            return Err(LinkError::ApiMisuse(
                "at least one record suite must be offered",
            ));
        }
        let provider = tls::provider();
        tls::seed_random(&provider)?;
        let key = provider
            .key_provider
            .load_private_key(svid.key().clone_key())
            .map_err(LinkError::Internal)?;
        Ok(Self {
            id: svid.id().clone(),
            trust_domain: svid.id().trust_domain(),
            certified_key: Arc::new(CertifiedKey::new(svid.chain().to_vec(), key)),
            trust: Arc::new(svid.trust().clone()),
            suites: suites.to_vec(),
            instance,
            successor_of: None,
            rekey: Rekey::InPlace,
            attesting: None,
            provider: Arc::new(provider),
        })
    }

    /// Names the instance of this node from which this daemon takes over.
    #[must_use]
    pub fn successor_of(mut self, instance: InstanceId) -> Self {
        self.successor_of = Some(instance);
        self
    }

    /// Says what this node's flows need at the end of a key.
    #[must_use]
    pub fn rekeying(mut self, rekey: Rekey) -> Self {
        self.rekey = rekey;
        self
    }

    /// Says what this node does about attestation; nothing, if that is never called.
    #[must_use]
    pub fn attesting(mut self, attesting: Option<Attesting>) -> Self {
        self.attesting = attesting;
        self
    }

    /// Believes others than those of the SVID's own bundle.
    #[must_use]
    pub fn trusting(mut self, trust: Arc<Trust>) -> Self {
        self.trust = trust;
        self
    }

    #[must_use]
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    #[must_use]
    pub fn instance(&self) -> InstanceId {
        self.instance
    }
}
