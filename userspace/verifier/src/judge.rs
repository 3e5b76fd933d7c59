//! From Evidence to a token, or to the one reason why not.

use crate::config::{Config, Rules, Texts};
use crate::nonce::Nonces;
use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use kedge_api::appraisal::Denial;
use kedge_attest::{Caller, Challenge, Evidence, Expected, Ledger, Lifetimes, Rejection};
use kedge_attest::{Nonce, Pin, VerifierKey};
use kedge_model::SpiffeId;
use rustls_pki_types::UnixTime;
use std::sync::{Mutex, PoisonError};

pub struct Judge {
    config: Config,
    key: VerifierKey,
    pin: Pin,
    caller: Caller,
    nonces: Nonces,
    rules: ArcSwap<Rules>,
    texts: Mutex<Texts>,
    ledger: Mutex<Ledger>,
}

impl Judge {
    /// # Errors
    /// When a file that the configuration names is not what it should be.
    pub fn new(config: Config) -> Result<Self> {
        let (key, pin) = config.read_key()?;
        let texts = config.read()?;
        Ok(Self {
            caller: Caller::new(&*config.name).context("name")?,
            nonces: Nonces::new().context("random bytes")?,
            rules: ArcSwap::from_pointee(Rules::parse(&texts)?),
            texts: Mutex::new(texts),
            ledger: Mutex::default(),
            config,
            key,
            pin,
        })
    }

    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    #[must_use]
    pub fn pin(&self) -> &Pin {
        &self.pin
    }

    /// Takes the files as they are now. What cannot be used leaves the last good ones in force.
    ///
    /// # Errors
    /// When they cannot be used; whether they had changed, else.
    pub fn reload(&self) -> Result<bool> {
        let texts = self.config.read()?;
        let mut last = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        if *last == texts {
            return Ok(false);
        }
        // A bad one is complained about once.
        last.clone_from(&texts);
        self.rules.store(Rules::parse(&texts)?.into());
        Ok(true)
    }

    /// # Errors
    /// When the library has no random bytes.
    pub fn nonce(&self, now: UnixTime) -> Result<Nonce> {
        self.nonces.make(now).context("random bytes")
    }

    /// A Result about `node`, if this Evidence is its own and is believed.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn appraise(
        &self,
        node: &SpiffeId,
        evidence: &[u8],
        now: UnixTime,
    ) -> Result<String, Denial> {
        let evidence = Evidence::parse(evidence).map_err(|why| denial(&why))?;
        let claims = &evidence.claims;
        if !self.nonces.is_ours(&claims.nonce, now) {
            return Err(denial(&Rejection::OtherNonce));
        }
        let asked = Challenge::appraisal(self.caller.clone(), claims.nonce.clone());
        let expected = Expected {
            node: node.clone(),
            // Whichever key the node has its SVID for: the Result is for that one.
            claims: asked.claims(claims.node_key),
        };
        let rules = self.rules.load();
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let verified = rules
            .verifier
            .verify(&evidence, &expected, &mut ledger, now)
            .map_err(|why| denial(&why))?;
        if rules.revoked.contains(&verified.ak()) {
            return Err(Denial {
                label: "ak-revoked".to_owned(),
                cause: format!("AK {} is revoked", verified.ak()),
                remedy: "take it out of the file that `revoked` names, or enrol another AK".into(),
            });
        }
        let lifetimes: Lifetimes = self.config.lifetimes();
        self.key
            .issue(&verified, lifetimes, now)
            .map_err(|error| Denial {
                label: error.label().to_owned(),
                cause: error.to_string(),
                remedy: error.remedy().to_owned(),
            })
    }
}

fn denial(why: &Rejection) -> Denial {
    Denial {
        label: why.label().to_owned(),
        cause: why.to_string(),
        remedy: why.remedy().to_owned(),
    }
}
