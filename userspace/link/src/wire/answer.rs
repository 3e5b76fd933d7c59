//! The acceptor's first record: whether the flow is carried.

use crate::limits::{ANSWER_PLAINTEXT_MAX, DENIAL_TEXT_MAX};
use crate::wire::WireError;
use crate::wire::tlv::{Field, Fields, once, put, put_optional, required};
use kedge_model::Refusal;

const WHAT: &str = "answer";
const ACCEPTED: u16 = 1;
const DENIED: u16 = 2;
const REASON: u16 = 1;
const TEXT: u16 = 2;

/// The content of the acceptor's record 0. Application data follows an `Accepted` only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Accepted,
    Denied {
        refusal: Refusal,
        /// For the opener's operator; never interpreted. Cut at 256 bytes when encoded.
        text: String,
    },
}

impl Answer {
    /// Appends the answer to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Accepted => put(out, ACCEPTED, &[]),
            Self::Denied { refusal, text } => {
                let mut value = Vec::with_capacity(16 + DENIAL_TEXT_MAX);
                put(&mut value, REASON, &refusal.code().to_be_bytes());
                put_optional(&mut value, TEXT, cut(text).as_bytes());
                put(out, DENIED, &value);
            }
        }
    }

    /// # Errors
    /// When it is not exactly one of the two, whole.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() > ANSWER_PLAINTEXT_MAX {
            return Err(WireError::TooLong(WHAT));
        }
        let mut answer = None;
        for field in Fields::of(WHAT, bytes) {
            let field = field?;
            match field.number {
                ACCEPTED => once(&mut answer, WHAT, ACCEPTED, parse_accepted(field)?)?,
                DENIED => once(&mut answer, WHAT, DENIED, parse_denied(field)?)?,
                _ => field.skip(WHAT)?,
            }
        }
        answer.ok_or(WireError::Malformed(WHAT))
    }
}

/// The text up to the last whole character within the limit.
fn cut(text: &str) -> &str {
    let fits = |end: &usize| text.is_char_boundary(*end);
    let end = (0..=text.len().min(DENIAL_TEXT_MAX))
        .rev()
        .find(fits)
        .unwrap_or(0);
    &text[..end]
}

fn parse_accepted(field: Field<'_>) -> Result<Answer, WireError> {
    for inner in Fields::of("answer accepted", field.value) {
        inner?.skip("answer accepted")?;
    }
    Ok(Answer::Accepted)
}

fn parse_denied(field: Field<'_>) -> Result<Answer, WireError> {
    const WHAT: &str = "answer denied";
    let (mut reason, mut text) = (None, None);
    for field in Fields::of(WHAT, field.value) {
        let field = field?;
        match field.number {
            REASON => once(
                &mut reason,
                WHAT,
                REASON,
                u16::from_be_bytes(field.array(WHAT)?),
            )?,
            TEXT => once(&mut text, WHAT, TEXT, parse_text(field)?)?,
            _ => field.skip(WHAT)?,
        }
    }
    let refusal = Refusal::from_code(required(reason, WHAT, REASON)?);
    Ok(Answer::Denied {
        refusal,
        text: text.unwrap_or_default(),
    })
}

fn parse_text(field: Field<'_>) -> Result<String, WireError> {
    if field.value.len() > DENIAL_TEXT_MAX {
        return Err(WireError::TooLong("denial text"));
    }
    let text = str::from_utf8(field.value).map_err(|_| WireError::Malformed("denial text"))?;
    Ok(text.to_owned())
}
