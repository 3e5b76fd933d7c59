//! Type-length-value fields: type u16, length u16, value. The type's top bit says that a receiver
//! that does not know the field must refuse the message; other unknown fields are skipped.

use crate::wire::WireError;

/// The top bit of a type: whoever does not know this field must refuse.
pub(crate) const CRITICAL: u16 = 0x8000;
pub(crate) const FIELD_HEADER_LEN: usize = 4;

/// One field, its type without the critical bit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    pub(crate) number: u16,
    critical: bool,
    pub(crate) value: &'a [u8],
}

impl<'a> Field<'a> {
    /// The field at the start of `bytes` and what follows it; `None` when it is not whole yet.
    pub(crate) fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (header, rest) = bytes.split_first_chunk::<FIELD_HEADER_LEN>()?;
        let kind = u16::from_be_bytes([header[0], header[1]]);
        let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let (value, rest) = rest.split_at_checked(len)?;
        let number = kind & !CRITICAL;
        Some((
            Self {
                number,
                critical: kind & CRITICAL != 0,
                value,
            },
            rest,
        ))
    }

    /// What to do with a field that the receiver does not know.
    pub(crate) fn skip(self, what: &'static str) -> Result<(), WireError> {
        if self.critical {
            return Err(WireError::UnknownCritical {
                what,
                field: self.number,
            });
        }
        Ok(())
    }

    /// The value as exactly `N` bytes.
    pub(crate) fn array<const N: usize>(self, what: &'static str) -> Result<[u8; N], WireError> {
        self.value
            .try_into()
            .map_err(|_| WireError::Malformed(what))
    }
}

/// The fields of a message; the last item is an error if they do not end where the message does.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Fields<'a> {
    pub(crate) fn of(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { rest: bytes, what }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let Some((field, rest)) = Field::split(self.rest) else {
            self.rest = &[];
            return Some(Err(WireError::Truncated(self.what)));
        };
        self.rest = rest;
        Some(Ok(field))
    }
}

/// Stores a field's value once.
pub(crate) fn once<T>(
    slot: &mut Option<T>,
    what: &'static str,
    field: u16,
    value: T,
) -> Result<(), WireError> {
    if slot.replace(value).is_some() {
        return Err(WireError::Duplicate { what, field });
    }
    Ok(())
}

/// The value of a field that must be there.
pub(crate) fn required<T>(slot: Option<T>, what: &'static str, field: u16) -> Result<T, WireError> {
    slot.ok_or(WireError::Missing { what, field })
}

/// Appends a critical field. All of version 1 are.
pub(crate) fn put(out: &mut Vec<u8>, number: u16, value: &[u8]) {
    let len = u16::try_from(value.len()).expect("values are bounded far below 64 KiB");
    out.extend_from_slice(&(number | CRITICAL).to_be_bytes());
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(value);
}

/// Appends a field that old receivers may skip.
pub(crate) fn put_optional(out: &mut Vec<u8>, number: u16, value: &[u8]) {
    let start = out.len();
    put(out, number, value);
    out[start] &= 0x7f;
}
