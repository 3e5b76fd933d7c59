//! The five bytes in front of every record.

use crate::error::FrameError;
use crate::limits::{CIPHERTEXT_MAX, CIPHERTEXT_MIN, HEADER_LEN};

const OUTER_TYPE: u8 = 23;
const LEGACY_VERSION: u16 = 0x0303;

/// Length of the complete record at the start of `bytes`, its header included; `None` when more
/// bytes are needed.
///
/// # Errors
/// As soon as the header cannot be one of a TLS 1.3 record, however few bytes are there.
#[inline]
pub fn deframe(bytes: &[u8]) -> Result<Option<usize>, FrameError> {
    let Some(header) = bytes.first_chunk::<HEADER_LEN>() else {
        return check_start(bytes).map(|()| None);
    };
    let total = HEADER_LEN + parse_header(*header)?;
    Ok((bytes.len() >= total).then_some(total))
}

/// Bytes that the record at the start of `bytes` lacks, as far as what is there tells: without a
/// whole header, those of the header.
///
/// # Errors
/// When the header is not one of a TLS 1.3 record.
pub fn missing(bytes: &[u8]) -> Result<usize, FrameError> {
    let total = match bytes.first_chunk::<HEADER_LEN>() {
        Some(header) => HEADER_LEN + parse_header(*header)?,
        None => HEADER_LEN,
    };
    Ok(total.saturating_sub(bytes.len()))
}

/// The header of a record with `ciphertext_len` bytes after it; also its additional data.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    reason = "CIPHERTEXT_MAX is below 2^16"
)]
pub(crate) fn header(ciphertext_len: usize) -> [u8; HEADER_LEN] {
    debug_assert!(ciphertext_len <= CIPHERTEXT_MAX);
    let [version_high, version_low] = LEGACY_VERSION.to_be_bytes();
    let [len_high, len_low] = (ciphertext_len as u16).to_be_bytes();
    [OUTER_TYPE, version_high, version_low, len_high, len_low]
}

/// Bytes after the header.
#[inline]
pub(crate) fn parse_header(header: [u8; HEADER_LEN]) -> Result<usize, FrameError> {
    let [outer, version_high, version_low, len_high, len_low] = header;
    let version = u16::from_be_bytes([version_high, version_low]);
    let len = usize::from(u16::from_be_bytes([len_high, len_low]));
    if outer != OUTER_TYPE {
        return Err(FrameError::Type(outer));
    }
    if version != LEGACY_VERSION {
        return Err(FrameError::Version(version));
    }
    if !(CIPHERTEXT_MIN..=CIPHERTEXT_MAX).contains(&len) {
        return Err(FrameError::Length(len));
    }
    Ok(len)
}

fn check_start(bytes: &[u8]) -> Result<(), FrameError> {
    match bytes {
        [outer, ..] if *outer != OUTER_TYPE => Err(FrameError::Type(*outer)),
        [_, high, low, ..] if u16::from_be_bytes([*high, *low]) != LEGACY_VERSION => {
            Err(FrameError::Version(u16::from_be_bytes([*high, *low])))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_found_only_when_it_is_whole() {
        let mut bytes = header(40).to_vec();
        bytes.resize(HEADER_LEN + 40, 0);
        for end in 0..bytes.len() {
            assert_eq!(deframe(&bytes[..end]), Ok(None), "{end}");
        }
        bytes.push(23);
        assert_eq!(deframe(&bytes), Ok(Some(45)));
    }

    #[test]
    fn what_cannot_become_a_record_is_refused_at_its_first_wrong_byte() {
        assert_eq!(deframe(&[22]), Err(FrameError::Type(22)));
        assert_eq!(deframe(&[23, 3, 1]), Err(FrameError::Version(0x0301)));
        assert_eq!(deframe(&[23, 3, 3, 0, 16]), Err(FrameError::Length(16)));
        assert_eq!(
            deframe(&[23, 3, 3, 0x41, 1]),
            Err(FrameError::Length(16_641))
        );
        assert_eq!(deframe(&[23, 3, 3, 0x41, 0]), Ok(None));
    }
}
