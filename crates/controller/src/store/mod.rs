//! What the log has built: in memory for serving, in sled for a quick restart, in snapshots for keeps.
//!
//! ```text
//! serving    the metadata that everybody reads, and the queue of its updates
//! table      the same in sled; may be thrown away at any time
//! snapshot   the same in one file, as of an earlier entry; the log reaches back to it
//! ```

pub(crate) mod serving;
pub(crate) mod snapshot;
pub(crate) mod table;

fn crc32c(bytes: &[u8]) -> u32 {
    // The algorithm's result fits 32 bits; the library's type serves longer ones too.
    crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes) as u32
}

#[cfg(test)]
mod tests {
    #[test]
    fn checksum_is_crc_32c() {
        assert_eq!(super::crc32c(b"123456789"), 0xe306_9283);
    }
}
