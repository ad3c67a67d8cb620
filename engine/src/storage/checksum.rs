//! CRC-32 (IEEE), which raft-engine's framing uses; our own records use CRC-32C from the `crc32c` crate.
//!
//! Eight table look-ups per eight bytes: the check at start reads every byte of the log.

const POLYNOMIAL: u32 = 0xedb8_8320;

static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut level = 1;
    while level < 8 {
        let mut byte = 0;
        while byte < 256 {
            let below = tables[level - 1][byte];
            tables[level][byte] = (below >> 8) ^ tables[0][(below & 0xff) as usize];
            byte += 1;
        }
        level += 1;
    }
    tables
}

pub(super) fn crc32_ieee(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let word = |at: usize| u32::from_le_bytes([chunk[at], chunk[at + 1], chunk[at + 2], chunk[at + 3]]);
        let (low, high) = (word(0) ^ crc, word(4));
        let byte = |word: u32, at: u32| ((word >> (8 * at)) & 0xff) as usize;
        crc = TABLES[7][byte(low, 0)]
            ^ TABLES[6][byte(low, 1)]
            ^ TABLES[5][byte(low, 2)]
            ^ TABLES[4][byte(low, 3)]
            ^ TABLES[3][byte(high, 0)]
            ^ TABLES[2][byte(high, 1)]
            ^ TABLES[1][byte(high, 2)]
            ^ TABLES[0][byte(high, 3)];
    }
    for byte in chunks.remainder() {
        crc = (crc >> 8) ^ TABLES[0][((crc ^ u32::from(*byte)) & 0xff) as usize];
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::crc32_ieee;

    #[test]
    fn known_answers() {
        assert_eq!(crc32_ieee(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32_ieee(b""), 0);
        assert_eq!(crc32_ieee(b"The quick brown fox jumps over the lazy dog"), 0x414f_a339);
    }
}
