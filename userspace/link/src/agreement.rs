//! Hello: both sides say all that they offer, and check that the best of it was taken.

use crate::config::LinkConfig;
use crate::error::{LinkError, PeerIncompatible, PeerMisbehaved};
use crate::wire::{Hello, LinkId, Role, VERSION};
use kedge_model::Suite;
use kedge_record::Rekey;

/// What TLS negotiated, as code points.
#[derive(Clone, Copy)]
pub(crate) struct Negotiated {
    pub(crate) group: u16,
    pub(crate) tls_suite: u16,
}

pub(crate) fn create_hello(config: &LinkConfig, random: [u8; 32], renews: Option<LinkId>) -> Hello {
    let provider = &config.provider;
    Hello {
        versions: vec![VERSION.into()],
        groups: provider
            .kx_groups
            .iter()
            .map(|group| group.name().into())
            .collect(),
        tls_suites: provider
            .cipher_suites
            .iter()
            .map(|suite| suite.suite().into())
            .collect(),
        record_suites: config
            .suites
            .iter()
            .map(|suite| suite.code_point())
            .collect(),
        instance: config.instance,
        random,
        renews,
        successor_of: config.successor_of,
        rekey: Some(config.rekey),
        attesting: config.attesting,
    }
}

/// How the keys of all flows of a link end. They continue if both sides know how and one needs it.
pub(crate) fn rekey(ours: &Hello, theirs: &Hello) -> Rekey {
    match (ours.rekey, theirs.rekey) {
        (Some(Rekey::Continue), Some(_)) | (Some(_), Some(Rekey::Continue)) => Rekey::Continue,
        _ => Rekey::InPlace,
    }
}

/// Checks the peer's hello against ours; gives the suite of all flows of this link.
pub(crate) fn consume_hello(
    our_role: Role,
    ours: &Hello,
    theirs: &Hello,
    negotiated: Negotiated,
) -> Result<Suite, LinkError> {
    let (client, server) = match our_role {
        Role::TlsClient => (ours, theirs),
        Role::TlsServer => (theirs, ours),
    };
    if server.renews.is_some() {
        return Err(PeerMisbehaved::WrongSide("renews").into());
    }
    if best(&client.versions, &server.versions) != Some(VERSION.into()) {
        return Err(PeerIncompatible::NoVersion.into());
    }
    check(
        "group",
        negotiated.group,
        best(&client.groups, &server.groups),
    )?;
    check(
        "TLS suite",
        negotiated.tls_suite,
        best(&client.tls_suites, &server.tls_suites),
    )?;
    best(&client.record_suites, &server.record_suites)
        .and_then(|code_point| Suite::try_from(code_point).ok())
        .ok_or(PeerIncompatible::NoRecordSuite.into())
}

/// The first of the TLS client's list that the TLS server offers too.
fn best(client: &[u16], server: &[u16]) -> Option<u16> {
    client.iter().copied().find(|offer| server.contains(offer))
}

fn check(what: &'static str, got: u16, best: Option<u16>) -> Result<(), PeerMisbehaved> {
    match best {
        Some(best) if best == got => Ok(()),
        best => Err(PeerMisbehaved::BelowCommonBest {
            what,
            got,
            best: best.unwrap_or(0),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::InstanceId;

    const HYBRID: u16 = 0x11ec;
    const X25519: u16 = 0x001d;

    fn hello(groups: &[u16], record_suites: &[u16]) -> Hello {
        Hello {
            versions: vec![1],
            groups: groups.to_vec(),
            tls_suites: vec![0x1302],
            record_suites: record_suites.to_vec(),
            instance: InstanceId([0; 16]),
            random: [0; 32],
            renews: None,
            successor_of: None,
            rekey: None,
            attesting: None,
        }
    }

    fn agreed(client: &Hello, server: &Hello, group: u16) -> Result<Suite, LinkError> {
        let negotiated = Negotiated {
            group,
            tls_suite: 0x1302,
        };
        let at_client = consume_hello(Role::TlsClient, client, server, negotiated);
        let at_server = consume_hello(Role::TlsServer, server, client, negotiated);
        assert_eq!(
            at_client.as_ref().ok(),
            at_server.as_ref().ok(),
            "both ends must agree"
        );
        at_client
    }

    #[test]
    fn the_clients_first_choice_that_the_server_has_is_taken_at_both_ends() {
        let client = hello(&[HYBRID], &[0x1303, 0x1302]);
        let server = hello(&[HYBRID], &[0x1302, 0x1301, 0x1303]);
        assert_eq!(
            agreed(&client, &server, HYBRID).ok(),
            Some(Suite::ChaCha20Poly1305)
        );
    }

    #[test]
    fn a_group_below_the_common_best_is_refused() {
        let both = hello(&[HYBRID, X25519], &[0x1302]);
        assert!(matches!(
            agreed(&both, &both, X25519),
            Err(LinkError::PeerMisbehaved(PeerMisbehaved::BelowCommonBest {
                got: X25519,
                best: HYBRID,
                ..
            }))
        ));
    }

    #[test]
    fn no_record_suite_in_common_is_incompatible_not_a_fallback() {
        let result = agreed(
            &hello(&[HYBRID], &[0x1302]),
            &hello(&[HYBRID], &[0x1303]),
            HYBRID,
        );
        assert!(matches!(
            result,
            Err(LinkError::PeerIncompatible(PeerIncompatible::NoRecordSuite))
        ));
    }

    #[test]
    fn flows_continue_where_both_know_how_and_one_needs_it() {
        use Rekey::{Continue, InPlace};
        let table = [
            (None, None, InPlace),
            (None, Some(InPlace), InPlace),
            (None, Some(Continue), InPlace),
            (Some(InPlace), Some(InPlace), InPlace),
            (Some(InPlace), Some(Continue), Continue),
            (Some(Continue), Some(Continue), Continue),
        ];
        let saying = |rekey| Hello {
            rekey,
            ..hello(&[HYBRID], &[0x1302])
        };
        for (one, other, agreed) in table {
            let (one, other) = (saying(one), saying(other));
            assert_eq!(rekey(&one, &other), agreed, "{one:?} {other:?}");
            assert_eq!(rekey(&other, &one), agreed, "{other:?} {one:?}");
        }
    }

    #[test]
    fn only_the_tls_client_renews() {
        let plain = hello(&[HYBRID], &[0x1302]);
        let renewing = Hello {
            renews: Some(LinkId([1; 16])),
            ..plain.clone()
        };
        assert!(agreed(&renewing, &plain, HYBRID).is_ok());
        assert!(agreed(&plain, &renewing, HYBRID).is_err());
    }
}
