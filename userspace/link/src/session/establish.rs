//! From two hellos to an established link and its keys.

use super::{Phase, Session};
use crate::agreement::{self, Negotiated};
use crate::error::LinkError;
use crate::event::{Established, SessionEvent};
use crate::inbound::Inbound;
use crate::outbound::Outbound;
use crate::schedule::{EXPORTER_LABEL, LinkSecrets, SECRET_LEN};
use crate::wire::{Hello, Role};
use aws_lc_rs::digest::{Context, Digest, SHA384};
use kedge_model::Suite;
use std::time::Instant;
use zeroize::Zeroizing;

impl Session {
    /// Both hellos are there: derive everything, then make the exporter alone worthless.
    pub(super) fn establish(
        &mut self,
        now: Instant,
        ours: &Hello,
        theirs: &Hello,
    ) -> Result<(), LinkError> {
        let negotiated = self.negotiated();
        let flow_suite = agreement::consume_hello(self.role, ours, theirs, negotiated)?;
        let secrets = self.derive_secrets(ours, theirs)?;
        self.tls
            .refresh_traffic_keys()
            .map_err(LinkError::Internal)?;
        let (link_id, our_secrets, peer_secrets) = secrets.split(self.role);
        let peer = self
            .verifier
            .peer()
            .expect("checked when the handshake ended")
            .clone();
        let (tls_client, renews) = match self.role {
            Role::TlsClient => (self.config.id.clone(), ours.renews),
            Role::TlsServer => (peer.id().clone(), theirs.renews),
        };
        self.shows_results = ours.attesting.is_some() && theirs.attesting.is_some();
        self.phase = Phase::Established;
        self.push(SessionEvent::Established(Box::new(Established {
            peer,
            peer_instance: theirs.instance,
            peer_successor_of: theirs.successor_of,
            link_id,
            role: self.role,
            tls_client,
            renews,
            group: format!("{:?}", rustls::NamedGroup::from(negotiated.group)),
            tls_suite: Suite::try_from(negotiated.tls_suite)
                .expect("only kedge's suites are in the provider"),
            flow_suite,
            rekey: agreement::rekey(ours, theirs),
            attesting: [ours.attesting, theirs.attesting],
            bytes_sent: self.bytes_sent,
            bytes_received: self.bytes_received,
            outbound: Outbound::new(link_id, self.role, flow_suite, our_secrets, now),
            inbound: Inbound::new(link_id, self.role.peer(), flow_suite, peer_secrets),
        })))
    }

    fn negotiated(&self) -> Negotiated {
        let group = self.tls.negotiated_key_exchange_group();
        let suite = self.tls.negotiated_cipher_suite();
        Negotiated {
            group: group.expect("the handshake is complete").name().into(),
            tls_suite: suite.expect("the handshake is complete").suite().into(),
        }
    }

    fn derive_secrets(&self, ours: &Hello, theirs: &Hello) -> Result<LinkSecrets, LinkError> {
        let exporter = self
            .tls
            .export_keying_material(
                Zeroizing::new([0; SECRET_LEN]),
                EXPORTER_LABEL,
                Some(self.leaves().as_ref()),
            )
            .map_err(LinkError::Internal)?;
        let (client, server) = match self.role {
            Role::TlsClient => (ours, theirs),
            Role::TlsServer => (theirs, ours),
        };
        Ok(LinkSecrets::derive(
            &exporter,
            &client.random,
            &server.random,
        ))
    }

    /// SHA-384(TLS client's leaf ‖ TLS server's leaf), both DER.
    fn leaves(&self) -> Digest {
        let ours = self.config.certified_key.cert.first();
        let theirs = self.tls.peer_certificates().and_then(<[_]>::first);
        let leaves = match self.role {
            Role::TlsClient => [ours, theirs],
            Role::TlsServer => [theirs, ours],
        };
        let mut hash = Context::new(&SHA384);
        for leaf in leaves {
            hash.update(leaf.expect("both sides have shown a certificate"));
        }
        hash.finish()
    }
}
