//! Long texts of a run, compressed where that pays: a megabyte of log lines is then some tens of pages less to write,
//! to copy from the write-ahead log and to back up. A short text stays text, which people read with SQL.

use rusqlite::ToSql;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef};

/// Shortest text that is compressed, in bytes: a shorter one fits beside its row or in one page more.
const BYTES_MIN: usize = 4096;
/// Longest text that is believed of a compressed one: what is kept of a stream is far below.
const BYTES_MAX: usize = 256 * 1024 * 1024;

/// A text as it is written: text, or LZ4 as a blob that begins with the text's length.
pub(super) enum Body<'t> {
    Text(&'t str),
    Packed(Vec<u8>),
}

impl<'t> From<&'t String> for Body<'t> {
    fn from(text: &'t String) -> Self {
        if text.len() < BYTES_MIN {
            return Self::Text(text);
        }
        let packed = lz4_flex::block::compress_prepend_size(text.as_bytes());
        // What saves little is not worth to be unpacked each time.
        if packed.len() > text.len() / 4 * 3 {
            return Self::Text(text);
        }
        Self::Packed(packed)
    }
}

impl ToSql for Body<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
            Self::Packed(packed) => ValueRef::Blob(packed),
        }))
    }
}

/// A text as it is read.
pub(super) struct Unpacked(pub(super) String);

impl FromSql for Unpacked {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value {
            ValueRef::Blob(packed) => unpack(packed).map(Self),
            text => String::column_result(text).map(Self),
        }
    }
}

fn unpack(packed: &[u8]) -> FromSqlResult<String> {
    let (bytes, packed) =
        lz4_flex::block::uncompressed_size(packed).map_err(FromSqlError::other)?;
    if bytes > BYTES_MAX {
        return Err(FromSqlError::OutOfRange(
            i64::try_from(bytes).unwrap_or(i64::MAX),
        ));
    }
    let text = lz4_flex::block::decompress(packed, bytes).map_err(FromSqlError::other)?;
    String::from_utf8(text).map_err(FromSqlError::other)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rusqlite::types::{FromSql, ToSql, ToSqlOutput, ValueRef};

    use super::{BYTES_MIN, Body, Unpacked, unpack};

    fn round_trip(text: &String) -> (String, usize) {
        let body = Body::from(text);
        let ToSqlOutput::Borrowed(value) = body.to_sql().unwrap() else {
            unreachable!("texts and blobs are borrowed")
        };
        let (ValueRef::Text(kept) | ValueRef::Blob(kept)) = value else {
            unreachable!("texts and blobs are kept")
        };
        (Unpacked::column_result(value).unwrap().0, kept.len())
    }

    #[test]
    fn log_lines_become_a_fraction_and_short_texts_stay() {
        let line = "2026-01-01 12:00:00 INFO  cleaned C:\\Windows\\Temp\\update.log\n";
        let long = line.repeat(1000);
        let (found, kept) = round_trip(&long);
        assert!(found == long && kept * 20 < long.len(), "{kept}");
        let short = line.repeat(BYTES_MIN / line.len());
        assert!(matches!(Body::from(&short), Body::Text(_)));
    }

    #[test]
    fn a_damaged_blob_is_an_error_and_no_allocation() {
        for blob in [
            &b""[..],
            b"\x01",
            b"\xff\xff\xff\xff\x00",
            b"\x10\0\0\0\xf0abc",
        ] {
            assert!(unpack(blob).is_err(), "{blob:?}");
        }
    }

    proptest! {
        #[test]
        fn texts_come_back(part: String, times in 0_usize..3000) {
            let text = part.repeat(times);
            prop_assert_eq!(round_trip(&text).0, text);
        }
    }
}
