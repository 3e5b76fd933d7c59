//! The Verifier: from Evidence to [`Verified`], or to the one reason why not.

use crate::ak::AkName;
use crate::attest::{Attest, ClockInfo, Counters, parse_signature, qualified_name_in_endorsement};
use crate::chain::{Roots, Usage, key_of, node_of};
use crate::claims::{Claims, NodeKey, Purpose, qualifying_data};
use crate::digest::Sha256;
use crate::error::Rejection;
use crate::event_log::EventLog;
use crate::evidence::{Evidence, Quoted};
use crate::ledger::Ledger;
use crate::pcr::PcrValues;
use crate::policy::{EventLogPolicy, PcrPolicy};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use kedge_model::SpiffeId;
use rustls_pki_types::UnixTime;

/// Whom a Verifier believes, and what it lets machines be.
pub struct Verifier {
    roots: Roots,
    policy: PcrPolicy,
    digest: Sha256,
}

/// What a Verifier asked for, and of whom.
#[derive(Clone, Debug)]
pub struct Expected {
    pub node: SpiffeId,
    pub claims: Claims,
}

/// Evidence that was believed. Only a [`Verifier`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    node: SpiffeId,
    node_key: NodeKey,
    purpose: Purpose,
    ak: AkName,
    clock: ClockInfo,
    pcrs: PcrValues,
    policy: Sha256,
    event_log: bool,
}

impl Verifier {
    /// AKs must be certified up to one of `roots`.
    #[must_use]
    pub fn new(roots: Roots, policy: PcrPolicy) -> Self {
        let digest = policy.digest();
        Self {
            roots,
            policy,
            digest,
        }
    }

    #[must_use]
    pub fn policy(&self) -> &PcrPolicy {
        &self.policy
    }

    /// Believes Evidence or says why not; `ledger` remembers how far each TPM has been. What fails
    /// changes nothing.
    ///
    /// # Errors
    /// The first thing that is wrong: first what the Evidence is about, then the key, then the
    /// quote, then the machine's state.
    pub fn verify(
        &self,
        evidence: &Evidence,
        expected: &Expected,
        ledger: &mut Ledger,
        now: UnixTime,
    ) -> Result<Verified, Rejection> {
        let Evidence { claims, quoted, .. } = evidence;
        check_claims(claims, &expected.claims)?;
        quoted.ak.require_ak()?;
        self.check_chain(quoted, &expected.node, now)?;
        let attest = check_quote(evidence)?;
        self.policy.check(&quoted.pcrs)?;
        self.check_event_log(quoted)?;
        let ak = quoted.ak.name();
        ledger.admit(ak, attest.clock.counters, attest.clock.clock_ms)?;
        Ok(Verified {
            node: expected.node.clone(),
            node_key: claims.node_key,
            purpose: claims.purpose,
            ak,
            clock: attest.clock,
            pcrs: quoted.pcrs.clone(),
            policy: self.digest,
            event_log: quoted.event_log.is_some(),
        })
    }

    /// What the PCRs of a node held, for a policy that is still to be learned: everything is checked
    /// that [`Verifier::verify`] checks, except for the values themselves.
    ///
    /// # Errors
    /// As of [`Verifier::verify`].
    pub fn observe(
        roots: &Roots,
        evidence: &Evidence,
        expected: &Expected,
        now: UnixTime,
    ) -> Result<PcrValues, Rejection> {
        check_claims(&evidence.claims, &expected.claims)?;
        evidence.quoted.ak.require_ak()?;
        check_chain(roots, &evidence.quoted, &expected.node, now)?;
        check_quote(evidence)?;
        Ok(evidence.quoted.pcrs.clone())
    }

    fn check_chain(
        &self,
        quoted: &Quoted,
        node: &SpiffeId,
        now: UnixTime,
    ) -> Result<(), Rejection> {
        check_chain(&self.roots, quoted, node, now)
    }

    fn check_event_log(&self, quoted: &Quoted) -> Result<(), Rejection> {
        match (&quoted.event_log, self.policy.event_log()) {
            (Some(log), _) => EventLog::parse(log)?.check(&quoted.pcrs),
            (None, EventLogPolicy::Required) => Err(Rejection::NoEventLog),
            (None, EventLogPolicy::Optional) => Ok(()),
        }
    }
}

impl Verified {
    #[must_use]
    pub fn node(&self) -> &SpiffeId {
        &self.node
    }

    #[must_use]
    pub fn node_key(&self) -> NodeKey {
        self.node_key
    }

    #[must_use]
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    #[must_use]
    pub fn ak(&self) -> AkName {
        self.ak
    }

    #[must_use]
    pub fn counters(&self) -> Counters {
        self.clock.counters
    }

    #[must_use]
    pub fn pcrs(&self) -> &PcrValues {
        &self.pcrs
    }

    /// Of the policy that allowed them.
    #[must_use]
    pub fn policy(&self) -> Sha256 {
        self.policy
    }

    /// Whether there was an event log, which then led to what was quoted.
    #[must_use]
    pub fn has_event_log(&self) -> bool {
        self.event_log
    }
}

fn check_claims(found: &Claims, expected: &Claims) -> Result<(), Rejection> {
    if found.purpose != expected.purpose {
        return Err(Rejection::OtherPurpose {
            found: found.purpose,
            expected: expected.purpose,
        });
    }
    if found.node_key != expected.node_key {
        return Err(Rejection::OtherNode);
    }
    if found.exporter != expected.exporter {
        return Err(Rejection::OtherLink);
    }
    if found.caller != expected.caller {
        return Err(Rejection::OtherCaller(found.caller.as_str().to_owned()));
    }
    match found.nonce == expected.nonce {
        true => Ok(()),
        false => Err(Rejection::OtherNonce),
    }
}

/// The AK's certificate is of this AK, of this node, and of somebody who is believed.
fn check_chain(
    roots: &Roots,
    quoted: &Quoted,
    node: &SpiffeId,
    now: UnixTime,
) -> Result<(), Rejection> {
    let chain = &quoted.ak_chain;
    roots
        .verify(chain, Usage::Ak, now)
        .map_err(Rejection::AkChain)?;
    let leaf = &chain[0];
    if key_of(leaf).map_err(Rejection::AkChain)? != quoted.ak.subject_public_key_info() {
        return Err(Rejection::AkOfOtherKey);
    }
    let found = node_of(leaf).map_err(Rejection::AkChain)?;
    match found == *node {
        true => Ok(()),
        false => Err(Rejection::AkOfOtherNode {
            found,
            expected: node.clone(),
        }),
    }
}

/// The AK signed a quote over a tree that has the claims as a leaf, and these PCR values.
fn check_quote(evidence: &Evidence) -> Result<Attest, Rejection> {
    let Quoted {
        attest,
        signature,
        pcrs,
        ak,
        ..
    } = &*evidence.quoted;
    let fixed = parse_signature(signature)?;
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, ak.point())
        .verify(attest, &fixed)
        .map_err(|_| Rejection::Signature)?;
    let attest = Attest::parse(attest)?;
    if attest.signer != qualified_name_in_endorsement(&ak.name().to_bytes()) {
        return Err(Rejection::OtherSigner);
    }
    let root = evidence.inclusion.root(evidence.claims.leaf())?;
    let expected = qualifying_data(evidence.inclusion.size, root);
    if attest.extra_data != expected.0 {
        return Err(Rejection::OtherTree);
    }
    if attest.selection != pcrs.selection() || attest.pcr_digest != pcrs.digest().0 {
        return Err(Rejection::PcrDigest);
    }
    Ok(attest)
}
