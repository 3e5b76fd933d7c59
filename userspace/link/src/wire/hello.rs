//! The hello frame: all that a side offers.

use crate::limits::OFFERS_MAX;
use crate::wire::tlv::{Field, Fields, once, put, put_optional, required};
use crate::wire::{Attesting, InstanceId, LinkId, WireError};
use kedge_record::Rekey;

const WHAT: &str = "hello";
const VERSIONS: u16 = 1;
const GROUPS: u16 = 2;
const TLS_SUITES: u16 = 3;
const RECORD_SUITES: u16 = 4;
const INSTANCE: u16 = 5;
const RANDOM: u16 = 6;
const RENEWS: u16 = 7;
const SUCCESSOR_OF: u16 = 8;
const REKEY: u16 = 9;
const ATTESTATION: u16 = 10;

/// What each side offers, in its order of preference, and who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    pub versions: Vec<u16>,
    /// TLS NamedGroup code points.
    pub groups: Vec<u16>,
    /// TLS CipherSuite code points, for the control connection.
    pub tls_suites: Vec<u16>,
    /// TLS CipherSuite code points, for flows.
    pub record_suites: Vec<u16>,
    pub instance: InstanceId,
    pub random: [u8; 32],
    /// The link that this one replaces, if any.
    pub renews: Option<LinkId>,
    /// The instance of the same node that this daemon takes over from, if any.
    pub successor_of: Option<InstanceId>,
    /// What this side's flows need; `None`: it knows no continuation.
    pub rekey: Option<Rekey>,
    /// What this side does about attestation; `None`: it knows none.
    pub attesting: Option<Attesting>,
}

impl Hello {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put(out, VERSIONS, &encode_list(&self.versions));
        put(out, GROUPS, &encode_list(&self.groups));
        put(out, TLS_SUITES, &encode_list(&self.tls_suites));
        put(out, RECORD_SUITES, &encode_list(&self.record_suites));
        put(out, INSTANCE, &self.instance.0);
        put(out, RANDOM, &self.random);
        if let Some(link_id) = self.renews {
            put(out, RENEWS, &link_id.0);
        }
        if let Some(instance) = self.successor_of {
            put(out, SUCCESSOR_OF, &instance.0);
        }
        if let Some(rekey) = self.rekey {
            put_optional(out, REKEY, &[u8::from(rekey == Rekey::Continue)]);
        }
        if let Some(attesting) = self.attesting {
            put_optional(out, ATTESTATION, &[attesting as u8]);
        }
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let (mut versions, mut groups, mut tls_suites, mut record_suites) =
            (None, None, None, None);
        let (mut instance, mut random, mut renews, mut successor_of) = (None, None, None, None);
        let (mut rekey, mut attesting) = (None, None);
        for field in Fields::of(WHAT, bytes) {
            let field = field?;
            let n = field.number;
            match n {
                VERSIONS => once(&mut versions, WHAT, n, parse_list(field)?)?,
                GROUPS => once(&mut groups, WHAT, n, parse_list(field)?)?,
                TLS_SUITES => once(&mut tls_suites, WHAT, n, parse_list(field)?)?,
                RECORD_SUITES => once(&mut record_suites, WHAT, n, parse_list(field)?)?,
                INSTANCE => once(&mut instance, WHAT, n, InstanceId(field.array(WHAT)?))?,
                RANDOM => once(&mut random, WHAT, n, field.array(WHAT)?)?,
                RENEWS => once(&mut renews, WHAT, n, LinkId(field.array(WHAT)?))?,
                SUCCESSOR_OF => {
                    once(&mut successor_of, WHAT, n, InstanceId(field.array(WHAT)?))?;
                }
                REKEY => once(&mut rekey, WHAT, n, parse_rekey(field)?)?,
                ATTESTATION => {
                    let found = Attesting::parse(field.array(WHAT)?)?;
                    once(&mut attesting, WHAT, n, found)?;
                }
                _ => field.skip(WHAT)?,
            }
        }
        Ok(Self {
            versions: required(versions, WHAT, VERSIONS)?,
            groups: required(groups, WHAT, GROUPS)?,
            tls_suites: required(tls_suites, WHAT, TLS_SUITES)?,
            record_suites: required(record_suites, WHAT, RECORD_SUITES)?,
            instance: required(instance, WHAT, INSTANCE)?,
            random: required(random, WHAT, RANDOM)?,
            renews,
            successor_of,
            rekey,
            attesting,
        })
    }
}

fn parse_rekey(field: Field<'_>) -> Result<Rekey, WireError> {
    match field.array(WHAT)? {
        [0] => Ok(Rekey::InPlace),
        [1] => Ok(Rekey::Continue),
        [found] => Err(WireError::Value {
            what: "hello rekey",
            found: found.into(),
        }),
    }
}

fn encode_list(list: &[u16]) -> Vec<u8> {
    list.iter().flat_map(|value| value.to_be_bytes()).collect()
}

fn parse_list(field: Field<'_>) -> Result<Vec<u16>, WireError> {
    let (pairs, rest) = field.value.as_chunks::<2>();
    if pairs.is_empty() || !rest.is_empty() {
        return Err(WireError::Malformed("hello list"));
    }
    if pairs.len() > OFFERS_MAX {
        return Err(WireError::TooLong("hello list"));
    }
    Ok(pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect())
}
