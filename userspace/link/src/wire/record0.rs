//! The content of record 0: who opens a flow to whom.

use crate::limits::{DESTINATION_INSTANCE_MAX, RECORD0_PLAINTEXT_MAX};
use crate::wire::tlv::{Fields, once, put, required};
use crate::wire::{Handle, ProofKind, WireError};
use kedge_model::{OriginalDst, SourceAddr, v6_mapped};
use std::net::{Ipv6Addr, SocketAddr};

const WHAT: &str = "record 0";
const SOURCE_HANDLE: u16 = 1;
const SOURCE_PROOF: u16 = 2;
const DESTINATION_HANDLE: u16 = 3;
const SOURCE_ADDRESS: u16 = 4;
const DESTINATION_ADDRESS: u16 = 5;
const DESTINATION_INSTANCE: u16 = 6;
const ADDRESS_LEN: usize = 18;

/// Source and destination of one flow. Usable in band, as record 0, or over the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record0 {
    /// The source identity, as the opener announced it on this link.
    pub source: Handle,
    pub source_proof: ProofKind,
    /// The destination identity, as the acceptor announced it on this link.
    pub destination: Handle,
    pub source_address: SourceAddr,
    pub destination_address: OriginalDst,
    /// The directory's uid of the destination, opaque, at most 64 bytes: tells a pod from its
    /// successor at the same address.
    pub destination_instance: Vec<u8>,
}

impl Record0 {
    /// Appends the fields to `out`.
    ///
    /// # Panics
    /// When the destination instance is longer than [`DESTINATION_INSTANCE_MAX`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        assert!(self.destination_instance.len() <= DESTINATION_INSTANCE_MAX);
        put(out, SOURCE_HANDLE, &self.source.0.to_be_bytes());
        put(out, SOURCE_PROOF, &[self.source_proof as u8]);
        put(out, DESTINATION_HANDLE, &self.destination.0.to_be_bytes());
        put(
            out,
            SOURCE_ADDRESS,
            &encode_address(self.source_address.socket_addr()),
        );
        put(
            out,
            DESTINATION_ADDRESS,
            &encode_address(self.destination_address.socket_addr()),
        );
        put(out, DESTINATION_INSTANCE, &self.destination_instance);
    }

    /// # Errors
    /// When a field is missing, twice there, malformed, or unknown and critical.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() > RECORD0_PLAINTEXT_MAX {
            return Err(WireError::TooLong(WHAT));
        }
        let mut raw = Raw::default();
        for field in Fields::of(WHAT, bytes) {
            let field = field?;
            let slot = match field.number {
                number @ SOURCE_HANDLE..=DESTINATION_INSTANCE => &mut raw.0[usize::from(number)],
                _ => {
                    field.skip(WHAT)?;
                    continue;
                }
            };
            once(slot, WHAT, field.number, field.value)?;
        }
        raw.check()
    }
}

/// The values by field number, before they are understood. Number 0 is no field.
#[derive(Default)]
struct Raw<'a>([Option<&'a [u8]>; DESTINATION_INSTANCE as usize + 1]);

impl Raw<'_> {
    fn check(&self) -> Result<Record0, WireError> {
        let [proof] = self.array(SOURCE_PROOF)?;
        let instance = required(self.0[usize::from(DESTINATION_INSTANCE)], WHAT, 6)?;
        if instance.len() > DESTINATION_INSTANCE_MAX {
            return Err(WireError::TooLong("destination instance"));
        }
        Ok(Record0 {
            source: Handle(u64::from_be_bytes(self.array(SOURCE_HANDLE)?)),
            source_proof: ProofKind::parse(proof)?,
            destination: Handle(u64::from_be_bytes(self.array(DESTINATION_HANDLE)?)),
            source_address: SourceAddr::new(decode_address(self.array(SOURCE_ADDRESS)?)),
            destination_address: OriginalDst::new(decode_address(self.array(DESTINATION_ADDRESS)?)),
            destination_instance: instance.to_vec(),
        })
    }

    fn array<const N: usize>(&self, number: u16) -> Result<[u8; N], WireError> {
        required(self.0[usize::from(number)], WHAT, number)?
            .try_into()
            .map_err(|_| WireError::Malformed(WHAT))
    }
}

/// 16 bytes of IPv6 or v4-mapped address, then the port.
fn encode_address(address: SocketAddr) -> [u8; ADDRESS_LEN] {
    let mut bytes = [0; ADDRESS_LEN];
    bytes[..16].copy_from_slice(&v6_mapped(address.ip()).octets());
    bytes[16..].copy_from_slice(&address.port().to_be_bytes());
    bytes
}

fn decode_address(bytes: [u8; ADDRESS_LEN]) -> SocketAddr {
    let (ip, port) = bytes.split_at(16);
    let ip: [u8; 16] = ip.try_into().expect("split at 16");
    SocketAddr::new(
        Ipv6Addr::from(ip).into(),
        u16::from_be_bytes([port[0], port[1]]),
    )
}
