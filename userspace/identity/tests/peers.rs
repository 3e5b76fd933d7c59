//! Goal: of all certificates that a peer may present, only a node's own, in time and from our CA,
//! becomes a `PeerIdentity`; each other one is refused for its own reason.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use kedge_identity::limits::LEAF_LIFETIME_DEFAULT;
use kedge_identity::{
    Ca, Fingerprint, NodeSvid, StoreError, SvidError, SvidPaths, Trust, verify_peer,
};
use kedge_model::{NodeName, SpiffeId, TrustDomain};
use rcgen::{
    CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PublicKeyData, SanType,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use tempfile::TempDir;

const NOW_S: u64 = 1_800_000_000;

fn at(offset_s: i64) -> UnixTime {
    let seconds = NOW_S.checked_add_signed(offset_s).unwrap();
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn trust_domain() -> TrustDomain {
    TrustDomain::parse("lab.kedge").unwrap()
}

fn node(name: &str) -> SpiffeId {
    SpiffeId::node(&trust_domain(), &NodeName::parse(name).unwrap())
}

/// A CA on disk, and what it is to believe it.
struct Authority {
    dir: TempDir,
    ca: Ca,
    trust: Trust,
}

impl Authority {
    fn of(trust_domain: &TrustDomain) -> Self {
        let dir = TempDir::new().unwrap();
        let ca = Ca::init(dir.path(), trust_domain, at(0)).unwrap();
        let trust = Trust::parse(ca.bundle_pem().as_bytes(), "").unwrap();
        Self { dir, ca, trust }
    }

    fn new() -> Self {
        Self::of(&trust_domain())
    }

    fn leaf(&self, id: &SpiffeId) -> CertificateDer<'static> {
        let issued = self.ca.issue(id, LEAF_LIFETIME_DEFAULT, at(0)).unwrap();
        CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap()
    }

    /// A leaf as a careless CA would make it: the right form, then `spoiled`.
    fn odd_leaf(&self, spoil: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![uri(node("a").as_str())];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        spoil(&mut params);
        let read = |name| fs::read_to_string(self.dir.path().join(name)).unwrap();
        let ca_key = KeyPair::from_pem(&read("ca.key")).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&read("ca.pem"), ca_key).unwrap();
        let key = KeyPair::generate().unwrap();
        params.signed_by(&key, &issuer).unwrap().der().clone()
    }

    fn refusal(&self, leaf: &CertificateDer<'_>) -> SvidError {
        verify_peer(leaf, &[], &self.trust, &trust_domain(), at(0)).unwrap_err()
    }
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

#[test]
fn a_node_of_our_ca_is_a_peer_until_its_certificate_ends() {
    let us = Authority::new();
    let leaf = us.leaf(&node("a"));
    let peer = verify_peer(&leaf, &[], &us.trust, &trust_domain(), at(0)).unwrap();
    assert_eq!((peer.id(), peer.name().as_str()), (&node("a"), "a"));
    assert_eq!(peer.not_after(), at(24 * 3600));
}

#[test]
fn the_odd_leaf_is_accepted_when_nothing_is_spoiled() {
    let us = Authority::new();
    let leaf = us.odd_leaf(|_| {});
    assert!(verify_peer(&leaf, &[], &us.trust, &trust_domain(), at(0)).is_ok());
}

#[test]
fn an_expired_certificate_is_refused() {
    let us = Authority::new();
    let leaf = us.leaf(&node("a"));
    let refusal = verify_peer(&leaf, &[], &us.trust, &trust_domain(), at(24 * 3600 + 1));
    assert!(
        matches!(refusal, Err(SvidError::Expired { .. })),
        "{refusal:?}"
    );
}

#[test]
fn a_revoked_leaf_is_refused_and_its_successor_is_not() {
    let us = Authority::new();
    let [lost, next] = [us.leaf(&node("a")), us.leaf(&node("a"))];
    let list = format!("{} # lost", Fingerprint::of(&lost));
    let trust = Trust::parse(us.ca.bundle_pem().as_bytes(), &list).unwrap();
    let verify = |leaf| verify_peer(leaf, &[], &trust, &trust_domain(), at(0));
    assert_eq!(
        verify(&lost).unwrap_err(),
        SvidError::RevokedLeaf(Fingerprint::of(&lost))
    );
    assert!(verify(&next).is_ok());
}

#[test]
fn a_revoked_node_is_refused_whatever_it_shows() {
    let us = Authority::new();
    let trust = Trust::parse(us.ca.bundle_pem().as_bytes(), node("a").as_str()).unwrap();
    let verify = |name| verify_peer(&us.leaf(&node(name)), &[], &trust, &trust_domain(), at(0));
    assert_eq!(verify("a").unwrap_err(), SvidError::RevokedNode(node("a")));
    assert!(verify("b").is_ok());
}

/// What was proven is proven as long as the bundle, the list and the time agree.
#[test]
fn a_proven_peer_is_verified_again_by_what_is_believed_now() {
    let us = Authority::new();
    let leaf = us.leaf(&node("a"));
    let peer = verify_peer(&leaf, &[], &us.trust, &trust_domain(), at(0)).unwrap();
    assert_eq!(peer.verify_again(&us.trust, at(60)), Ok(()));
    let other = Authority::new().trust;
    assert_eq!(peer.verify_again(&other, at(60)), Err(SvidError::Untrusted));
    let late = peer.verify_again(&us.trust, at(24 * 3600 + 1));
    assert!(matches!(late, Err(SvidError::Expired { .. })), "{late:?}");
    let revoked = Trust::parse(us.ca.bundle_pem().as_bytes(), node("a").as_str()).unwrap();
    let verdict = peer.verify_again(&revoked, at(60));
    assert_eq!(verdict, Err(SvidError::RevokedNode(node("a"))));
}

#[test]
fn a_revocation_list_that_is_named_and_missing_is_an_error() {
    let us = Authority::new();
    let [bundle, list] = ["ca.pem", "revoked"].map(|name| us.dir.path().join(name));
    assert_eq!(Trust::load(&bundle, None).unwrap(), us.trust);
    let missing = Trust::load(&bundle, Some(&list)).unwrap_err();
    assert!(matches!(missing, StoreError::File { .. }), "{missing:?}");
    fs::write(&list, "a line that is none").unwrap();
    let wrong = Trust::load(&bundle, Some(&list)).unwrap_err();
    assert!(matches!(wrong, StoreError::Revocation(_)), "{wrong:?}");
}

#[test]
fn a_clock_five_minutes_behind_is_forgiven_and_six_are_not() {
    let us = Authority::new();
    let leaf = us.leaf(&node("a"));
    let verify = |now| verify_peer(&leaf, &[], &us.trust, &trust_domain(), now);
    assert!(verify(at(-300)).is_ok());
    let refusal = verify(at(-360));
    assert!(
        matches!(refusal, Err(SvidError::NotYetValid { .. })),
        "{refusal:?}"
    );
}

#[test]
fn another_trust_domain_is_refused_even_under_a_shared_anchor() {
    let elsewhere = TrustDomain::parse("other.kedge").unwrap();
    let them = Authority::of(&elsewhere);
    let leaf = them.leaf(&SpiffeId::node(&elsewhere, &NodeName::parse("a").unwrap()));
    assert!(matches!(them.refusal(&leaf), SvidError::TrustDomain { .. }));
}

#[test]
fn a_workload_certificate_makes_no_node() {
    let us = Authority::new();
    let workload = SpiffeId::workload(&trust_domain(), "default", "web").unwrap();
    assert_eq!(
        us.refusal(&us.leaf(&workload)),
        SvidError::NotANode(workload)
    );
}

#[test]
fn a_path_below_a_node_is_no_node() {
    let us = Authority::new();
    let leaf = us.odd_leaf(|p| {
        p.subject_alt_names = vec![uri("spiffe://lab.kedge/kedge/node/a/b")];
    });
    assert!(matches!(us.refusal(&leaf), SvidError::NotANode(_)));
}

#[test]
fn exactly_one_uri_and_no_other_name() {
    let us = Authority::new();
    let names = |sans: Vec<SanType>| us.refusal(&us.odd_leaf(|p| p.subject_alt_names = sans));
    let (a, b) = (node("a"), node("b"));
    assert_eq!(
        names(vec![uri(a.as_str()), uri(b.as_str())]),
        SvidError::SubjectNames { uris: 2, others: 0 }
    );
    assert_eq!(
        names(vec![
            uri(a.as_str()),
            SanType::DnsName("a.lab".try_into().unwrap())
        ]),
        SvidError::SubjectNames { uris: 1, others: 1 }
    );
    assert_eq!(
        names(vec![]),
        SvidError::SubjectNames { uris: 0, others: 0 }
    );
    assert!(matches!(
        names(vec![uri("https://lab.kedge/")]),
        SvidError::Id(_)
    ));
}

#[test]
fn a_ca_certificate_is_no_leaf() {
    let us = Authority::new();
    let unconstrained = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let leaf = us.odd_leaf(|p| p.is_ca = unconstrained);
    assert_eq!(us.refusal(&leaf), SvidError::IsCa);
    let signer = us.odd_leaf(|p| p.key_usages.push(KeyUsagePurpose::KeyCertSign));
    assert_eq!(us.refusal(&signer), SvidError::IsCa);
}

#[test]
fn a_leaf_must_allow_both_tls_roles_and_signatures() {
    let us = Authority::new();
    let limited =
        us.odd_leaf(|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    assert!(matches!(us.refusal(&limited), SvidError::Usage(_)));
    let unlimited = us.odd_leaf(|p| p.extended_key_usages.clear());
    assert!(matches!(us.refusal(&unlimited), SvidError::Usage(_)));
    let unsigned = us.odd_leaf(|p| p.key_usages = vec![KeyUsagePurpose::KeyAgreement]);
    assert!(matches!(us.refusal(&unsigned), SvidError::Usage(_)));
}

#[test]
fn another_ca_of_the_same_trust_domain_is_untrusted() {
    let (us, impostor) = (Authority::new(), Authority::new());
    let refusal = us.refusal(&impostor.leaf(&node("a")));
    assert!(
        matches!(refusal, SvidError::Untrusted | SvidError::Chain(_)),
        "{refusal:?}"
    );
    assert!(refusal.remedy().contains("bundle.pem"));
}

#[test]
fn garbage_is_malformed() {
    let us = Authority::new();
    let mut trailing = us.leaf(&node("a")).to_vec();
    trailing.push(0);
    for der in [vec![], vec![0x30, 0x82], vec![0xff; 400], trailing] {
        assert_eq!(us.refusal(&CertificateDer::from(der)), SvidError::Malformed);
    }
}

#[test]
fn a_node_loads_what_the_ca_wrote_and_its_key_is_private() {
    let us = Authority::new();
    let out = TempDir::new().unwrap();
    let paths = SvidPaths::in_dir(out.path(), "node");
    let write = || {
        us.ca
            .issue(&node("a"), LEAF_LIFETIME_DEFAULT, at(0))
            .unwrap()
            .write(&paths)
            .unwrap();
    };
    write();
    write();
    let svid = NodeSvid::load(&paths, &node("a"), at(0)).unwrap();
    assert_eq!((svid.id(), svid.chain().len()), (&node("a"), 1));
    assert_eq!(*svid.trust(), us.trust);
    let mode = fs::metadata(&paths.key).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(
        fs::read_dir(out.path()).unwrap().count(),
        3,
        "no temporary file stays"
    );
}

#[test]
fn a_node_refuses_a_certificate_that_is_not_its_own() {
    let us = Authority::new();
    let [a, b] = ["a", "b"].map(|name| {
        us.ca
            .issue(&node(name), LEAF_LIFETIME_DEFAULT, at(0))
            .unwrap()
    });
    let parse = |key: &str, expected: &SpiffeId| {
        let pem = [&a.certificate_pem, key, &a.bundle_pem].map(str::as_bytes);
        NodeSvid::parse(pem, expected, at(0)).unwrap_err()
    };
    let not_us = parse(&a.key_pem, &node("b"));
    assert!(
        matches!(not_us, StoreError::Svid(SvidError::NotUs { .. })),
        "{not_us:?}"
    );
    let mismatch = parse(&b.key_pem, &node("a"));
    assert!(
        matches!(mismatch, StoreError::Svid(SvidError::KeyMismatch)),
        "{mismatch:?}"
    );
}

#[test]
fn a_ca_is_never_overwritten_and_reopens_as_it_was() {
    let us = Authority::new();
    let again = Ca::init(us.dir.path(), &trust_domain(), at(0));
    assert!(matches!(again, Err(StoreError::CaExists(_))));
    let reopened = Ca::open(us.dir.path()).unwrap();
    assert_eq!(reopened.trust_domain(), &trust_domain());
    assert_eq!(reopened.bundle_pem(), us.ca.bundle_pem());
}

#[test]
fn a_ca_whose_key_others_can_read_is_not_used() {
    let us = Authority::new();
    let key = us.dir.path().join("ca.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(
        Ca::open(us.dir.path()),
        Err(StoreError::KeyExposed(_))
    ));
}

#[test]
fn a_ca_issues_for_its_own_trust_domain_and_for_a_bounded_time() {
    let us = Authority::new();
    let foreign = SpiffeId::parse("spiffe://other.kedge/kedge/node/a").unwrap();
    let issue = |id: &SpiffeId, days: u64| {
        us.ca
            .issue(id, Duration::from_secs(days * 86_400), at(0))
            .err()
    };
    assert!(matches!(
        issue(&foreign, 1),
        Some(StoreError::ForeignId { .. })
    ));
    assert!(matches!(
        issue(&node("a"), 0),
        Some(StoreError::Lifetime { .. })
    ));
    assert!(matches!(
        issue(&node("a"), 91),
        Some(StoreError::Lifetime { .. })
    ));
    assert!(issue(&node("a"), 90).is_none());
}

#[test]
fn the_certificate_of_a_tpms_key_is_no_svid() {
    let us = Authority::new();
    let key = KeyPair::generate().unwrap();
    let issue = |id: &SpiffeId| {
        let spki = key.subject_public_key_info();
        us.ca.issue_ak(id, &spki, LEAF_LIFETIME_DEFAULT, at(0))
    };
    let issued = issue(&node("a")).unwrap();
    let leaf = CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap();
    let refused = verify_peer(&leaf, &[], &us.trust, &trust_domain(), at(0));
    assert!(matches!(refused, Err(SvidError::Usage(_))), "{refused:?}");
    let workload = SpiffeId::parse("spiffe://lab.kedge/ns/x/sa/web").unwrap();
    let refused = issue(&workload).err();
    assert!(matches!(
        refused,
        Some(StoreError::Svid(SvidError::NotANode(_)))
    ));
    let foreign = SpiffeId::parse("spiffe://other.kedge/kedge/node/a").unwrap();
    let refused = issue(&foreign).err();
    assert!(matches!(refused, Some(StoreError::ForeignId { .. })));
}
