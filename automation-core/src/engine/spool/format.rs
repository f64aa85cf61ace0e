//! How a record lies in the file: places of one size behind a header, each with a checksum. Pure; knows neither files
//! nor what a record says.
//!
//! A checksum covers the file's own id, the place and the record. So what a crash left half written, what another file
//! left on the same blocks and what moved to another place is no record.

use sha2::{Digest, Sha256};

/// Where the first place begins: a page of its own, so that no write to a place touches the header.
pub(super) const HEADER_BYTES: usize = 4096;
/// Bytes of a place.
pub(super) const PLACE_BYTES: usize = 32 * 1024;
/// Longest record.
pub(super) const RECORD_BYTES_MAX: usize = PLACE_BYTES - RECORD_AT;
/// Bytes of a place that say whether there is a record and how long it is.
pub(super) const LENGTH_BYTES: usize = 4;

const MAGIC: &[u8; 20] = b"automation spool 1\n\0";
const ID_AT: usize = MAGIC.len();
const HEADER_SUM_AT: usize = ID_AT + size_of::<FileId>();
const SUM_BYTES: usize = 32;
const RECORD_AT: usize = LENGTH_BYTES + SUM_BYTES;

/// What tells one file from another, however alike they are.
pub(super) type FileId = [u8; 16];

/// Returns the header of a file.
pub(super) fn header(id: FileId) -> Vec<u8> {
    let mut header = vec![0; HEADER_BYTES];
    header[..ID_AT].copy_from_slice(MAGIC);
    header[ID_AT..HEADER_SUM_AT].copy_from_slice(&id);
    let sum = Sha256::digest(&header[..HEADER_SUM_AT]);
    header[HEADER_SUM_AT..HEADER_SUM_AT + SUM_BYTES].copy_from_slice(&sum);
    header
}

/// Returns the id of the file that begins with these bytes; `None` where it is no such file.
pub(super) fn read_header(bytes: &[u8]) -> Option<FileId> {
    let header = bytes.get(..HEADER_BYTES)?;
    let sum = Sha256::digest(&header[..HEADER_SUM_AT]);
    let is_ours =
        header.starts_with(MAGIC) && header[HEADER_SUM_AT..HEADER_SUM_AT + SUM_BYTES] == sum[..];
    is_ours.then(|| header[ID_AT..HEADER_SUM_AT].try_into().ok())?
}

/// Returns where a place begins.
pub(super) const fn place_at(place: u32) -> u64 {
    HEADER_BYTES as u64 + place as u64 * PLACE_BYTES as u64
}

/// Returns how many places a file of this length has.
pub(super) fn places_in(file_bytes: u64) -> u32 {
    let bytes = file_bytes.saturating_sub(HEADER_BYTES as u64);
    u32::try_from(bytes / PLACE_BYTES as u64).unwrap_or(u32::MAX)
}

/// Returns what is written to a place for a record; `None` for one that is empty or too long.
pub(super) fn seal(file: FileId, place: u32, record: &[u8]) -> Option<Vec<u8>> {
    if record.is_empty() || record.len() > RECORD_BYTES_MAX {
        return None;
    }
    let length = u32::try_from(record.len()).ok()?;
    let mut bytes = Vec::with_capacity(RECORD_AT + record.len());
    bytes.extend(length.to_le_bytes());
    bytes.extend(sum(file, place, record));
    bytes.extend(record);
    Some(bytes)
}

/// Returns the record that a place holds, if it holds a whole one.
pub(super) fn unseal(file: FileId, place: u32, bytes: &[u8]) -> Option<&[u8]> {
    let length = bytes.get(..LENGTH_BYTES)?.try_into().ok()?;
    let length = usize::try_from(u32::from_le_bytes(length)).ok()?;
    if length == 0 || length > RECORD_BYTES_MAX {
        return None;
    }
    let found = bytes.get(LENGTH_BYTES..RECORD_AT)?;
    let record = bytes.get(RECORD_AT..RECORD_AT + length)?;
    (found == sum(file, place, record)).then_some(record)
}

fn sum(file: FileId, place: u32, record: &[u8]) -> [u8; SUM_BYTES] {
    let mut sum = Sha256::new();
    sum.update(file);
    sum.update(place.to_le_bytes());
    sum.update(
        u64::try_from(record.len())
            .unwrap_or(u64::MAX)
            .to_le_bytes(),
    );
    sum.update(record);
    sum.finalize().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        FileId, HEADER_BYTES, PLACE_BYTES, RECORD_BYTES_MAX, header, place_at, places_in,
        read_header, seal, unseal,
    };

    /// What a place looks like after a write to it.
    fn written(mut before: Vec<u8>, sealed: &[u8]) -> Vec<u8> {
        before[..sealed.len()].copy_from_slice(sealed);
        before
    }

    fn record() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 1..200),
            proptest::collection::vec(any::<u8>(), RECORD_BYTES_MAX - 3..=RECORD_BYTES_MAX),
        ]
    }

    #[test]
    fn a_record_fits_exactly() {
        let longest = seal([1; 16], 0, &vec![7; RECORD_BYTES_MAX]).unwrap();
        assert_eq!(longest.len(), PLACE_BYTES);
        assert!(seal([1; 16], 0, &vec![7; RECORD_BYTES_MAX + 1]).is_none());
        assert!(seal([1; 16], 0, &[]).is_none());
        assert_eq!(places_in(place_at(7)), 7);
        assert_eq!((places_in(0), places_in(place_at(1) - 1)), (0, 0));
    }

    #[test]
    fn an_empty_place_holds_nothing() {
        assert_eq!(unseal([0; 16], 0, &vec![0; PLACE_BYTES]), None);
        assert_eq!(unseal([0; 16], 0, &[]), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn what_was_written_is_read(id: FileId, place: u32, record in record()) {
            let bytes = written(vec![0xaa; PLACE_BYTES], &seal(id, place, &record).unwrap());
            prop_assert_eq!(unseal(id, place, &bytes), Some(&record[..]));
            prop_assert_eq!(unseal(id, place.wrapping_add(1), &bytes), None, "another place");
            let mut other = id;
            other[3] ^= 1;
            prop_assert_eq!(unseal(other, place, &bytes), None, "another file");
        }

        #[test]
        fn arbitrary_bytes_hold_no_record(
            id: FileId, place: u32, length: Option<u16>,
            mut bytes in proptest::collection::vec(any::<u8>(), 0..PLACE_BYTES + 9),
        ) {
            if let (Some(length), true) = (length, bytes.len() >= 4) {
                bytes[..4].copy_from_slice(&u32::from(length).to_le_bytes());
            }
            prop_assert_eq!(unseal(id, place, &bytes), None);
            prop_assert_eq!(read_header(&bytes), None);
        }

        #[test]
        fn a_flipped_bit_spoils_a_record(
            id: FileId, record in proptest::collection::vec(any::<u8>(), 1..200), at: prop::sample::Index, bit in 0..8_u8,
        ) {
            let mut sealed = seal(id, 0, &record).unwrap();
            let at = at.index(sealed.len());
            sealed[at] ^= 1_u8 << bit;
            let place = written(vec![0; PLACE_BYTES], &sealed);
            prop_assert_eq!(unseal(id, 0, &place), None);
        }

        /// The disk writes sectors in any order, and a crash may come between any two.
        #[test]
        fn a_torn_write_leaves_the_old_record_or_the_new_one_or_none(
            id: FileId, old in record(), new in record(), kept in proptest::collection::vec(any::<bool>(), PLACE_BYTES / 512),
        ) {
            let before = written(vec![0; PLACE_BYTES], &seal(id, 5, &old).unwrap());
            let after = written(before.clone(), &seal(id, 5, &new).unwrap());
            let mut torn = after.clone();
            for (sector, _) in kept.iter().enumerate().filter(|(_, kept)| **kept) {
                let sector = sector * 512..(sector + 1) * 512;
                torn[sector.clone()].copy_from_slice(&before[sector]);
            }
            let found = unseal(id, 5, &torn);
            prop_assert!(found.is_none_or(|found| found == old || found == new));
        }

        #[test]
        fn a_header_is_whole_or_none(id: FileId, at in 0..HEADER_BYTES, bit in 0..8_u8) {
            let mut bytes = header(id);
            prop_assert_eq!(read_header(&bytes), Some(id));
            prop_assert_eq!(read_header(&bytes[..HEADER_BYTES - 1]), None);
            bytes[at] ^= 1_u8 << bit;
            let covered = at < super::HEADER_SUM_AT + super::SUM_BYTES;
            prop_assert_eq!(read_header(&bytes), (!covered).then_some(id));
        }
    }
}
