//! The link's key schedule: from the TLS exporter to the secrets of both openers. All hashes are
//! SHA-384 (docs/protocol.md, "Link key schedule").

use crate::wire::{LinkId, Role};
use aws_lc_rs::hkdf::{HKDF_SHA384, Prk, Salt};
use kedge_record::{Hash, expand_label, expand_label_from};
use zeroize::Zeroizing;

pub(crate) const EXPORTER_LABEL: &[u8] = b"EXPORTER-kedge link v1";
pub(crate) const SECRET_LEN: usize = 48;

/// 48 secret bytes, erased when dropped.
pub(crate) struct Secret(Zeroizing<[u8; SECRET_LEN]>);

impl Secret {
    pub(crate) fn expand(&self, label: &str, context: &[u8]) -> Self {
        let mut next = Zeroizing::new([0; SECRET_LEN]);
        self.expand_into(label, context, &mut *next);
        Self(next)
    }

    pub(crate) fn expand_into(&self, label: &str, context: &[u8], out: &mut [u8]) {
        expand_label(Hash::Sha384, &*self.0, label, context, out);
    }

    pub(crate) fn bytes(&self) -> &[u8; SECRET_LEN] {
        &self.0
    }

    fn from_master(master: &Prk, label: &str, context: &[u8]) -> Self {
        let mut secret = Zeroizing::new([0; SECRET_LEN]);
        expand_label_from(master, label, context, &mut *secret);
        Self(secret)
    }
}

/// What one opener role needs; both ends derive both.
pub(crate) struct OpenerSecrets {
    /// The opener secret of epoch 0.
    pub(crate) epoch0: Secret,
    /// Keys the MAC of carrier openings.
    pub(crate) carrier: Secret,
}

/// Everything that comes from the master secret, which is gone afterwards.
pub(crate) struct LinkSecrets {
    pub(crate) link_id: LinkId,
    pub(crate) tls_client: OpenerSecrets,
    pub(crate) tls_server: OpenerSecrets,
}

impl LinkSecrets {
    pub(crate) fn derive(
        exporter: &Zeroizing<[u8; SECRET_LEN]>,
        client_random: &[u8; 32],
        server_random: &[u8; 32],
    ) -> Self {
        let mut salt = [0; 64];
        salt[..32].copy_from_slice(client_random);
        salt[32..].copy_from_slice(server_random);
        let master = Salt::new(HKDF_SHA384, &salt).extract(&**exporter);
        let mut link_id = [0; 16];
        expand_label_from(&master, "kedge link id", b"", &mut link_id);
        Self {
            link_id: LinkId(link_id),
            tls_client: OpenerSecrets::derive(&master, Role::TlsClient),
            tls_server: OpenerSecrets::derive(&master, Role::TlsServer),
        }
    }

    /// Our secrets as an opener, and the peer's.
    pub(crate) fn split(self, our_role: Role) -> (LinkId, OpenerSecrets, OpenerSecrets) {
        match our_role {
            Role::TlsClient => (self.link_id, self.tls_client, self.tls_server),
            Role::TlsServer => (self.link_id, self.tls_server, self.tls_client),
        }
    }
}

impl OpenerSecrets {
    fn derive(master: &Prk, role: Role) -> Self {
        let context = [role as u8];
        Self {
            epoch0: Secret::from_master(master, "kedge opener", &context),
            carrier: Secret::from_master(master, "kedge carrier", &context),
        }
    }
}
