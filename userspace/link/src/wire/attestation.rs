//! What nodes show each other of their attestation. This crate carries it and judges nothing.

use crate::limits::{ATTESTATION_RESULT_MAX, ATTESTATION_TEXT_MAX};
use crate::wire::WireError;
use crate::wire::tlv::{Fields, once, put, required};
use kedge_model::Refusal;

const RESULT: &str = "result";
const TOKEN: u16 = 1;
const WHY_NONE: u16 = 2;
const VERDICT: &str = "verdict";
const REASON: u16 = 1;
const TEXT: u16 = 2;
/// The reason of one who takes flows: no refusal has this code.
const TAKEN: u16 = 0;

/// What a side does about attestation, as its hello says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attesting {
    /// It shows what it has, and refuses nobody.
    Optional = 0,
    /// It takes no flow before it has believed a Result.
    Required = 1,
}

/// What a side shows of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// An Attestation Result.
    Result(String),
    /// None, and why, for people.
    Nothing(String),
}

/// What a side makes of what it was shown: it takes flows, or it does not, with the reason and a text
/// for people.
pub type Verdict = Result<(), (Refusal, String)>;

impl Attesting {
    pub(super) fn parse([found]: [u8; 1]) -> Result<Self, WireError> {
        match found {
            0 => Ok(Self::Optional),
            1 => Ok(Self::Required),
            _ => Err(WireError::Value {
                what: "hello attestation",
                found: found.into(),
            }),
        }
    }
}

impl Shown {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Result(token) => put(out, TOKEN, token.as_bytes()),
            Self::Nothing(why) => put(out, WHY_NONE, cut(why, ATTESTATION_TEXT_MAX).as_bytes()),
        }
    }

    pub(super) fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let (mut token, mut why) = (None, None);
        for field in Fields::of(RESULT, bytes) {
            let field = field?;
            let n = field.number;
            match n {
                TOKEN => once(&mut token, RESULT, n, field.value)?,
                WHY_NONE => once(&mut why, RESULT, n, field.value)?,
                _ => field.skip(RESULT)?,
            }
        }
        match (token, why) {
            (Some(token), None) => text(RESULT, token, ATTESTATION_RESULT_MAX).map(Self::Result),
            (None, Some(why)) => text(RESULT, why, ATTESTATION_TEXT_MAX).map(Self::Nothing),
            _ => Err(WireError::Malformed(
                "result has not exactly one of token and reason",
            )),
        }
    }
}

/// Every verdict says so: one that was cut is none.
pub(super) fn encode_verdict(verdict: &Verdict, out: &mut Vec<u8>) {
    let (code, text) = match verdict {
        Ok(()) => (TAKEN, ""),
        Err((refusal, text)) => (refusal.code(), cut(text, ATTESTATION_TEXT_MAX)),
    };
    put(out, REASON, &code.to_be_bytes());
    put(out, TEXT, text.as_bytes());
}

pub(super) fn parse_verdict(bytes: &[u8]) -> Result<Verdict, WireError> {
    let (mut reason, mut said) = (None, None);
    for field in Fields::of(VERDICT, bytes) {
        let field = field?;
        let n = field.number;
        match n {
            REASON => once(&mut reason, VERDICT, n, field.array(VERDICT)?)?,
            TEXT => once(&mut said, VERDICT, n, field.value)?,
            _ => field.skip(VERDICT)?,
        }
    }
    let code = u16::from_be_bytes(required(reason, VERDICT, REASON)?);
    let said = required(said, VERDICT, TEXT)?;
    let said = text(VERDICT, said, ATTESTATION_TEXT_MAX)?;
    Ok(match code {
        TAKEN => Ok(()),
        code => Err((Refusal::from_code(code), said)),
    })
}

fn text(what: &'static str, bytes: &[u8], limit: usize) -> Result<String, WireError> {
    if bytes.len() > limit {
        return Err(WireError::TooLong(what));
    }
    let text = str::from_utf8(bytes).map_err(|_| WireError::Malformed(what))?;
    Ok(text.to_owned())
}

/// The start of a text that has no more bytes than that.
fn cut(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_two_characters() {
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("aé", 3), "aé");
        assert_eq!(cut("", 3), "");
    }
}
