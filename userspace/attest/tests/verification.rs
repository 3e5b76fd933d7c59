//! Goal: Evidence is believed for exactly what it was made for, and every attack has its own refusal.
//!
//! ```text
//!   Attester "a" (a TPM in software, AK certified by its root) ── Evidence ──► Verifier
//!        ▲ what is changed, exchanged or repeated on the way: one thing a test
//! ```

use kedge_attest::testing::{self, AK_ATTRIBUTES, Attester, SoftTpm, challenge, challenge_of};
use kedge_attest::{
    Caller, ChainError, Challenge, Counters, EnrolError, Enrolment, EventLog, Evidence, Expected,
    Ledger, LedgerError, LinkExporter, Nonce, PcrPolicy, ProofError, Purpose, Quoted, Rejection,
    Request, Roots, Sha256, Verified, Verifier, attributes, limits,
};
use rustls_pki_types::UnixTime;
use std::sync::Arc;
use std::time::Duration;

fn now() -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000))
}

/// A policy that allows what the attester's PCRs hold now.
fn policy_of(attester: &mut Attester) -> PcrPolicy {
    let evidence = attester.evidence(challenge(0));
    PcrPolicy::learn([&evidence.quoted.pcrs]).expect("PCRs are quoted")
}

fn verifier(attester: &mut Attester) -> Verifier {
    Verifier::new(attester.roots(), policy_of(attester))
}

fn verify(
    verifier: &Verifier,
    evidence: &Evidence,
    expected: &Expected,
) -> Result<Verified, Rejection> {
    // Over the wire, as it would come.
    let evidence = Evidence::parse(&evidence.encode())?;
    verifier.verify(&evidence, expected, &mut Ledger::default(), now())
}

/// What becomes of Evidence whose quote was changed.
fn with_quoted(change: impl FnOnce(&mut Quoted)) -> Result<Verified, Rejection> {
    let mut attester = Attester::new("a");
    let verifier = verifier(&mut attester);
    let mut evidence = attester.evidence(challenge(1));
    change(Arc::make_mut(&mut evidence.quoted));
    verify(&verifier, &evidence, &attester.expected(challenge(1)))
}

/// What becomes of Evidence from a TPM that is another than a TPM is.
fn with_tpm(change: impl FnOnce(&mut SoftTpm)) -> Result<Verified, Rejection> {
    let mut tpm = SoftTpm::default();
    change(&mut tpm);
    let node = Attester::new("a").node;
    let mut attester = Attester::with_tpm(node, tpm);
    let verifier = verifier(&mut attester);
    let evidence = attester.evidence(challenge(1));
    verify(&verifier, &evidence, &attester.expected(challenge(1)))
}

#[test]
fn evidence_is_believed_for_what_it_was_made_for() {
    let mut attester = Attester::new("a");
    let verifier = verifier(&mut attester);
    let challenges: Vec<_> = (0..33).map(challenge).collect();
    for (number, evidence) in (0..).zip(attester.evidence_for(challenges)) {
        let expected = attester.expected(challenge(number));
        let verified = verify(&verifier, &evidence, &expected).expect("honest");
        assert_eq!(verified.node(), &attester.node);
        assert_eq!(verified.node_key(), attester.node_key);
        assert_eq!(verified.ak(), attester.tpm.ak().name());
        assert_eq!(
            verified.counters(),
            Counters {
                reset: 3,
                restart: 1
            }
        );
        assert_eq!(verified.purpose(), Purpose::Local);
    }
    assert_eq!(attester.tpm.quotes, 2, "one to learn, one for all");
}

#[test]
fn evidence_of_an_older_nonce_is_refused() {
    let mut attester = Attester::new("a");
    let verifier = verifier(&mut attester);
    let old = attester.evidence(challenge(1));
    let refused = verify(&verifier, &old, &attester.expected(challenge(2)));
    assert_eq!(refused, Err(Rejection::OtherNonce));
}

#[test]
fn evidence_of_an_older_nonce_that_claims_the_new_one_is_refused() {
    let mut attester = Attester::new("a");
    let verifier = verifier(&mut attester);
    let mut old = attester.evidence(challenge(1));
    old.claims = challenge(2).claims(attester.node_key);
    let refused = verify(&verifier, &old, &attester.expected(challenge(2)));
    assert_eq!(refused, Err(Rejection::OtherTree));
}

#[test]
fn evidence_of_another_node_is_refused() {
    let (mut a, mut b) = (Attester::new("a"), Attester::new("b"));
    let verifier = verifier(&mut a);
    let others = b.evidence(challenge(1));
    let refused = verify(&verifier, &others, &a.expected(challenge(1)));
    assert_eq!(refused, Err(Rejection::OtherNode));
}

#[test]
fn an_ak_that_is_certified_for_another_node_is_refused() {
    let (mut a, mut b) = (Attester::new("a"), Attester::new("b"));
    let verifier = verifier(&mut b);
    // b's TPM states a's key: b's operator may configure that.
    b.node_key = a.node_key;
    let others = b.evidence(challenge(1));
    let refused = verify(&verifier, &others, &a.expected(challenge(1)));
    let expected = Rejection::AkOfOtherNode {
        found: b.node.clone(),
        expected: a.node.clone(),
    };
    assert_eq!(refused, Err(expected));
    // Nor does its certificate help a, whose TPM has another AK.
    a.ak_chain = b.ak_chain.clone();
    let refused = verify(
        &verifier,
        &a.evidence(challenge(1)),
        &a.expected(challenge(1)),
    );
    assert_eq!(refused, Err(Rejection::AkOfOtherKey));
}

fn link_challenge(exporter: u8) -> Challenge {
    let caller = Caller::new("spiffe://td/kedge/node/b").expect("short");
    let nonce = Nonce::new([1; 16]).expect("16 bytes");
    Challenge::link(caller, LinkExporter::for_tests([exporter; 32]), nonce)
}

#[test]
fn evidence_of_another_link_is_refused() {
    let mut attester = Attester::new("a");
    let verifier = verifier(&mut attester);
    let evidence = attester.evidence(link_challenge(1));
    let ours = attester.expected(link_challenge(1));
    assert!(verify(&verifier, &evidence, &ours).is_ok());
    let other = attester.expected(link_challenge(2));
    assert_eq!(
        verify(&verifier, &evidence, &other),
        Err(Rejection::OtherLink)
    );
    let mut claiming = evidence;
    claiming.claims = other.claims.clone();
    assert_eq!(
        verify(&verifier, &claiming, &other),
        Err(Rejection::OtherTree)
    );
}

#[test]
fn evidence_got_through_the_socket_is_refused_for_a_link() {
    let mut attester = Attester::new("a");
    let verifier = verifier(&mut attester);
    // Somebody on the node asks with the nonce that the link's peer has chosen, and under its name.
    let caller = Caller::new("spiffe://td/kedge/node/b").expect("short");
    let nonce = Nonce::new([1; 16]).expect("16 bytes");
    let mut evidence = attester.evidence(Challenge::local(caller, nonce));
    let expected = attester.expected(link_challenge(1));
    let refused = verify(&verifier, &evidence, &expected);
    assert_eq!(
        refused,
        Err(Rejection::OtherPurpose {
            found: Purpose::Local,
            expected: Purpose::Link
        })
    );
    evidence.claims = testing::claimed_for_link(&evidence.claims, [1; 32]);
    assert_eq!(evidence.claims, expected.claims);
    let refused = verify(&verifier, &evidence, &expected);
    assert_eq!(refused, Err(Rejection::OtherTree));
}

#[test]
fn evidence_of_another_caller_is_refused() {
    let mut attester = Attester::new("a");
    let verifier = verifier(&mut attester);
    let evidence = attester.evidence(challenge_of("other", 1));
    let refused = verify(&verifier, &evidence, &attester.expected(challenge(1)));
    assert_eq!(refused, Err(Rejection::OtherCaller("other".into())));
}

#[test]
fn a_forged_inclusion_proof_is_refused() {
    let mut attester = Attester::new("a");
    let verifier = verifier(&mut attester);
    let all = attester.evidence_for((0..5).map(challenge).collect());
    let expected = attester.expected(challenge(2));
    let forged = |change: fn(&mut Evidence)| {
        let mut evidence = all[2].clone();
        change(&mut evidence);
        verify(&verifier, &evidence, &expected)
    };
    assert!(forged(|_| {}).is_ok());
    assert_eq!(
        forged(|e| e.inclusion.nodes[0].0[0] ^= 1),
        Err(Rejection::OtherTree)
    );
    assert_eq!(forged(|e| e.inclusion.index = 3), Err(Rejection::OtherTree));
    assert_eq!(forged(|e| e.inclusion.size = 6), Err(Rejection::OtherTree));
    let too_long = Rejection::Inclusion(ProofError::TooLong(1));
    assert_eq!(
        forged(|e| e.inclusion.nodes.push(Sha256([0; 32]))),
        Err(too_long)
    );
    let too_short = Rejection::Inclusion(ProofError::TooShort(1));
    assert_eq!(forged(|e| e.inclusion.nodes.truncate(2)), Err(too_short));
    let outside = Rejection::Inclusion(ProofError::Index { index: 5, size: 5 });
    assert_eq!(forged(|e| e.inclusion.index = 5), Err(outside));
    // A challenge that nobody asked: proven by the place of one that somebody did.
    let refused = verify(&verifier, &all[1], &expected);
    assert_eq!(refused, Err(Rejection::OtherNonce));
}

#[test]
fn a_key_that_is_not_restricted_is_refused() {
    let refused = with_tpm(|tpm| tpm.attributes = AK_ATTRIBUTES & !attributes::RESTRICTED);
    assert_eq!(refused, Err(Rejection::AkLacks("restricted")));
    let refused = with_tpm(|tpm| tpm.attributes = AK_ATTRIBUTES & !attributes::FIXED_TPM);
    assert_eq!(refused, Err(Rejection::AkLacks("fixedTPM")));
    let refused = with_tpm(|tpm| tpm.attributes = AK_ATTRIBUTES | attributes::DECRYPT);
    assert_eq!(refused, Err(Rejection::AkDecrypts));
}

#[test]
fn what_no_tpm_made_or_is_no_quote_is_refused() {
    let refused = with_tpm(|tpm| tpm.head.0 = 0x4b45_4447);
    assert_eq!(refused, Err(Rejection::NotFromTpm));
    let refused = with_tpm(|tpm| tpm.head.1 = 0x8017);
    assert_eq!(refused, Err(Rejection::NotAQuote(0x8017)));
    let refused = with_tpm(|tpm| tpm.signer = Some(vec![0; 34]));
    assert_eq!(refused, Err(Rejection::OtherSigner));
}

#[test]
fn a_changed_quote_signature_or_pcr_value_is_refused() {
    let signed = |quoted: &mut Quoted| *quoted.attest.last_mut().expect("long") ^= 1;
    assert_eq!(with_quoted(signed), Err(Rejection::Signature));
    let signature = |quoted: &mut Quoted| *quoted.signature.last_mut().expect("long") ^= 1;
    assert_eq!(with_quoted(signature), Err(Rejection::Signature));
    let other = [(0, Sha256([9; 32])), (7, Sha256([0; 32]))];
    let values = |quoted: &mut Quoted| quoted.pcrs = kedge_attest::PcrValues::new(other);
    assert_eq!(with_quoted(values), Err(Rejection::PcrDigest));
    let fewer = |quoted: &mut Quoted| {
        quoted.pcrs = kedge_attest::PcrValues::new([(0, Sha256([0; 32]))]);
    };
    assert_eq!(with_quoted(fewer), Err(Rejection::PcrDigest));
}

#[test]
fn an_extended_pcr_is_refused_by_its_number_until_the_policy_allows_it() {
    let mut attester = Attester::new("a");
    let before = verifier(&mut attester);
    attester.tpm.extend(7, Sha256([4; 32]));
    let evidence = attester.evidence(challenge(1));
    let expected = attester.expected(challenge(1));
    let refused = verify(&before, &evidence, &expected).expect_err("extended");
    assert!(
        matches!(refused, Rejection::Pcr { index: 7, .. }),
        "{refused}"
    );
    assert!(refused.to_string().contains("PCR 7"), "{refused}");
    let observed = Verifier::observe(&attester.roots(), &evidence, &expected, now());
    let learned = PcrPolicy::learn([&observed.expect("honest")]).expect("PCRs are quoted");
    let after = Verifier::new(attester.roots(), learned);
    assert!(verify(&after, &evidence, &expected).is_ok());
}

#[test]
fn a_pcr_that_the_policy_names_has_to_be_quoted() {
    let mut attester = Attester::new("a");
    let verifier = verifier(&mut attester);
    attester.selection = kedge_attest::PcrSelection::of(&[0]);
    let evidence = attester.evidence(challenge(1));
    let refused = verify(&verifier, &evidence, &attester.expected(challenge(1)));
    assert_eq!(refused, Err(Rejection::PcrNotQuoted(7)));
}

#[test]
fn an_event_log_has_to_lead_to_what_is_quoted() {
    let mut attester = Attester::new("a");
    let events: [(u32, u32, &[u8]); 2] = [(0, 1, b"firmware"), (7, 1, b"secure boot")];
    for (pcr, _, data) in events {
        let pcr = u8::try_from(pcr).expect("small");
        attester.tpm.extend(pcr, Sha256::of(&[data]));
    }
    let verifier = verifier(&mut attester);
    let expected = attester.expected(challenge(1));
    attester.event_log = Some(EventLog::encode_for_tests(&events));
    let verified = verify(&verifier, &attester.evidence(challenge(1)), &expected);
    assert!(verified.expect("honest").has_event_log());
    attester.event_log = Some(EventLog::encode_for_tests(&events[..1]));
    let refused = verify(&verifier, &attester.evidence(challenge(1)), &expected);
    assert!(matches!(refused, Err(Rejection::EventLog { index: 7, .. })));
    attester.event_log = Some(vec![0; 10]);
    let refused = verify(&verifier, &attester.evidence(challenge(1)), &expected);
    assert!(matches!(refused, Err(Rejection::Malformed(_))));
}

#[test]
fn a_policy_that_requires_an_event_log_refuses_evidence_without_one() {
    let mut attester = Attester::new("a");
    let text = policy_of(&mut attester)
        .to_toml()
        .replace("optional", "required");
    let policy = PcrPolicy::parse(&text).expect("a policy");
    let verifier = Verifier::new(attester.roots(), policy);
    let evidence = attester.evidence(challenge(1));
    let refused = verify(&verifier, &evidence, &attester.expected(challenge(1)));
    assert_eq!(refused, Err(Rejection::NoEventLog));
}

#[test]
fn counters_that_went_back_are_refused() {
    let mut attester = Attester::new("a");
    let verifier = verifier(&mut attester);
    let mut ledger = Ledger::default();
    let expected = attester.expected(challenge(1));
    let mut attest = |attester: &mut Attester| {
        let evidence = attester.evidence(challenge(1));
        verifier.verify(&evidence, &expected, &mut ledger, now())
    };
    assert!(attest(&mut attester).is_ok());
    attester.tpm.clock.counters = Counters {
        reset: 2,
        restart: 9,
    };
    let refused = attest(&mut attester);
    assert!(matches!(
        refused,
        Err(Rejection::Counters(LedgerError::RolledBack { .. }))
    ));
    attester.tpm.clock.counters = Counters {
        reset: 4,
        restart: 0,
    };
    assert!(attest(&mut attester).is_ok());
}

#[test]
fn an_ak_without_a_certificate_of_a_configured_root_is_refused() {
    let mut attester = Attester::new("a");
    let policy = policy_of(&mut attester);
    let evidence = attester.evidence(challenge(1));
    let expected = attester.expected(challenge(1));
    let by = |roots, evidence: &Evidence| {
        verify(&Verifier::new(roots, policy.clone()), evidence, &expected)
    };
    let strangers = Attester::new("stranger").roots();
    for roots in [strangers, Roots::default()] {
        let refused = by(roots, &evidence);
        assert_eq!(refused, Err(Rejection::AkChain(ChainError::UnknownRoot)));
    }
    let mut bare = evidence.clone();
    Arc::make_mut(&mut bare.quoted).ak_chain.clear();
    let refused = by(attester.roots(), &bare);
    assert_eq!(refused, Err(Rejection::AkChain(ChainError::Missing)));
    let mut broken = evidence;
    Arc::make_mut(&mut broken.quoted).ak_chain = vec![vec![1, 2, 3].into()];
    let refused = by(attester.roots(), &broken);
    assert_eq!(refused, Err(Rejection::AkChain(ChainError::Malformed)));
}

#[test]
fn a_chain_past_its_bound_is_refused_before_it_is_looked_at() {
    let attester = Attester::new("a");
    let chain = vec![attester.ak_chain[0].clone(); limits::CHAIN_CERTIFICATES_MAX + 1];
    let refused = with_quoted(|quoted| quoted.ak_chain = chain.clone());
    assert!(
        matches!(refused, Err(Rejection::Malformed(_))),
        "by the form of Evidence"
    );
    let request = Request {
        node: attester.node.clone(),
        ek_chain: chain,
        ak: attester.tpm.ak(),
    };
    let refused = Enrolment::begin(request, &attester.roots(), now()).err();
    let count = limits::CHAIN_CERTIFICATES_MAX + 1;
    assert_eq!(
        refused,
        Some(EnrolError::EkChain(ChainError::TooLong(count)))
    );
}

#[test]
fn a_certificate_for_another_usage_certifies_no_ak() {
    let mut attester = Attester::new("a");
    let policy = policy_of(&mut attester);
    // id-kp-serverAuth: such as an SVID of the same CA would have.
    let server_auth = [1, 3, 6, 1, 5, 5, 7, 3, 1];
    let (root, leaf) = testing::certify(&attester.node, &attester.tpm.ak(), &server_auth);
    attester.ak_chain = vec![leaf];
    let verifier = Verifier::new(Roots::new([&root]).expect("a root"), policy);
    let evidence = attester.evidence(challenge(1));
    let refused = verify(&verifier, &evidence, &attester.expected(challenge(1)));
    assert_eq!(
        refused,
        Err(Rejection::AkChain(ChainError::Usage("2.23.133.8.3")))
    );
}

#[test]
fn a_certificate_that_has_ended_certifies_no_ak() {
    let mut attester = Attester::new("a");
    let verifier = verifier(&mut attester);
    let evidence = attester.evidence(challenge(1));
    let late = UnixTime::since_unix_epoch(Duration::from_secs(80_000_000_000));
    let expected = attester.expected(challenge(1));
    let refused = verifier.verify(&evidence, &expected, &mut Ledger::default(), late);
    assert_eq!(refused, Err(Rejection::AkChain(ChainError::Time)));
}

#[test]
fn every_changed_byte_of_evidence_is_refused() {
    let mut attester = Attester::new("a");
    let verifier = verifier(&mut attester);
    let bytes = attester.evidence_for((0..3).map(challenge).collect())[1].encode();
    let expected = attester.expected(challenge(1));
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 0x01;
        let outcome = Evidence::parse(&changed).and_then(|evidence| {
            verifier.verify(&evidence, &expected, &mut Ledger::default(), now())
        });
        assert!(outcome.is_err(), "byte {at} of {}", bytes.len());
    }
}
