//! What a ClientHello offers and a ServerHello chooses (RFC 8446, 4.1 and 4.2): just enough to
//! say in which group a key exchange happened, and whether it was a full one.

/// From one direction's first handshake message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// `supported_groups` of a ClientHello, in its order.
    pub groups: Vec<u16>,
    /// The groups of `key_share`: what a client sends keys for, or the one that a server chose.
    pub shares: Vec<u16>,
    /// A session is resumed, or offered to be: no full handshake.
    pub pre_shared_key: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    Client,
    Server,
}

const HANDSHAKE: u8 = 22;
const SUPPORTED_GROUPS: u16 = 10;
const PRE_SHARED_KEY: u16 = 41;
const KEY_SHARE: u16 = 51;

/// The hello at the start of a direction's bytes, which begin with TLS records.
#[must_use]
pub fn parse(bytes: &[u8], sender: Sender) -> Option<Hello> {
    let message = handshake_bytes(bytes);
    let mut reader = Reader(&message);
    let kind = reader.number(1)?;
    let mut body = Reader(reader.vector(3)?);
    body.bytes(2 + 32)?;
    body.vector(1)?;
    match (sender, kind) {
        (Sender::Client, 1) => {
            body.vector(2)?;
            body.vector(1)?;
        }
        (Sender::Server, 2) => {
            body.bytes(2 + 1)?;
        }
        _ => return None,
    }
    extensions(body.vector(2)?, sender)
}

/// The contents of the leading handshake records, which a message may span.
fn handshake_bytes(bytes: &[u8]) -> Vec<u8> {
    let mut reader = Reader(bytes);
    let mut message = Vec::new();
    while reader.number(1) == Some(u64::from(HANDSHAKE)) {
        let fragment = reader.bytes(2).and_then(|_| reader.vector(2));
        let Some(fragment) = fragment else { break };
        message.extend_from_slice(fragment);
    }
    message
}

fn extensions(bytes: &[u8], sender: Sender) -> Option<Hello> {
    let mut hello = Hello::default();
    let mut reader = Reader(bytes);
    while !reader.0.is_empty() {
        let kind = reader.short()?;
        let mut body = Reader(reader.vector(2)?);
        match (kind, sender) {
            (SUPPORTED_GROUPS, _) => hello.groups = shorts(body.vector(2)?),
            (KEY_SHARE, Sender::Client) => hello.shares = client_shares(body.vector(2)?)?,
            (KEY_SHARE, Sender::Server) => hello.shares = vec![body.short()?],
            (PRE_SHARED_KEY, _) => hello.pre_shared_key = true,
            _ => {}
        }
    }
    Some(hello)
}

fn client_shares(bytes: &[u8]) -> Option<Vec<u16>> {
    let mut reader = Reader(bytes);
    let mut groups = Vec::new();
    while !reader.0.is_empty() {
        groups.push(reader.short()?);
        reader.vector(2)?;
    }
    Some(groups)
}

fn shorts(bytes: &[u8]) -> Vec<u16> {
    bytes
        .chunks_exact(2)
        .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
        .collect()
}

/// The registry's name of a group (IANA, TLS Supported Groups).
#[must_use]
pub fn group_name(group: u16) -> String {
    match group {
        0x0017 => "secp256r1".to_owned(),
        0x0018 => "secp384r1".to_owned(),
        0x001d => "X25519".to_owned(),
        0x11eb => "SecP256r1MLKEM768".to_owned(),
        0x11ec => "X25519MLKEM768".to_owned(),
        other => format!("group {other:#06x}"),
    }
}

/// Takes from the front; `None` when there is not enough.
struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn bytes(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self, width: usize) -> Option<u64> {
        Some(
            self.bytes(width)?
                .iter()
                .fold(0, |sum, &byte| sum << 8 | u64::from(byte)),
        )
    }

    fn short(&mut self) -> Option<u16> {
        u16::try_from(self.number(2)?).ok()
    }

    fn vector(&mut self, width: usize) -> Option<&'b [u8]> {
        let length = usize::try_from(self.number(width)?).ok()?;
        self.bytes(length)
    }
}
