//! Header compression: requests the way grpc-go writes them, answers decoded in full.
//!
//! A request header is a literal with indexing the first time and one byte afterwards, so the generator spends
//! next to nothing on it and the server sees what real clients send.

use anyhow::{Result, anyhow};
use fluke_hpack::Decoder;
use std::collections::VecDeque;

/// Static table entries: `:method: POST`, `:scheme: http`, `:scheme: https`.
const METHOD_POST: u8 = 0x83;
const SCHEME_HTTP: u8 = 0x86;
const SCHEME_HTTPS: u8 = 0x87;
/// The dynamic table starts after the static one.
const FIRST_DYNAMIC: usize = 62;
/// Table size both sides start with (RFC 9113, 6.5.2), and what RFC 7541, 4.1 adds for each entry.
const TABLE_BYTES: usize = 4096;
const ENTRY_OVERHEAD: usize = 32;

struct Entry {
    name: &'static str,
    value: String,
}

/// Writes request header blocks. Entries are never evicted: what does not fit is sent in full each time.
#[derive(Default)]
pub(crate) struct Encoder {
    table: VecDeque<Entry>,
    used: usize,
}

impl Encoder {
    pub(crate) fn start_post(&self, out: &mut Vec<u8>, encrypted: bool) {
        out.push(METHOD_POST);
        out.push(if encrypted { SCHEME_HTTPS } else { SCHEME_HTTP });
    }

    pub(crate) fn header(&mut self, out: &mut Vec<u8>, name: &'static str, value: &str) {
        if let Some(index) = self.table.iter().position(|e| e.name == name && e.value == value) {
            write_integer(out, 0x80, 7, FIRST_DYNAMIC + index);
            return;
        }
        let size = name.len() + value.len() + ENTRY_OVERHEAD;
        let fits = self.used + size <= TABLE_BYTES;
        out.push(if fits { 0x40 } else { 0x00 });
        write_string(out, name);
        write_string(out, value);
        if fits {
            self.used += size;
            self.table.push_front(Entry { name, value: value.to_owned() });
        }
    }

    /// A server may ask for a smaller table after we have begun to use ours. That is not implemented, so it is said.
    pub(crate) fn peer_table_size(&self, bytes: u32) -> Result<()> {
        match (bytes as usize) < TABLE_BYTES {
            true => Err(anyhow!(
                "server asks for a header table of {bytes} bytes, below {TABLE_BYTES}: not supported"
            )),
            false => Ok(()),
        }
    }
}

fn write_integer(out: &mut Vec<u8>, first: u8, prefix_bits: u32, value: usize) {
    let limit = (1usize << prefix_bits) - 1;
    if value < limit {
        out.push(first | value as u8);
        return;
    }
    out.push(first | limit as u8);
    let mut rest = value - limit;
    while rest >= 128 {
        out.push((rest % 128) as u8 | 0x80);
        rest /= 128;
    }
    out.push(rest as u8);
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    write_integer(out, 0, 7, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// What a header block of an answer said about the call, if it was the block that ends it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct GrpcTrailer {
    pub(crate) status: Option<i32>,
    pub(crate) message: String,
}

struct Known {
    block: Vec<u8>,
    trailer: GrpcTrailer,
}

/// Decodes the header blocks of answers, remembering blocks whose meaning cannot have changed.
pub(crate) struct ResponseDecoder {
    decoder: Decoder<'static>,
    /// Blocks made of one-byte indexed fields only, valid until any block changes the dynamic table.
    known: Vec<Known>,
}

impl ResponseDecoder {
    pub(crate) fn new() -> Self {
        ResponseDecoder { decoder: Decoder::new(), known: Vec::new() }
    }

    pub(crate) fn decode(&mut self, block: &[u8]) -> Result<GrpcTrailer> {
        let indexed_only = block.iter().all(|byte| byte & 0x80 != 0 && *byte != 0xff);
        if !indexed_only {
            self.known.clear();
        } else if let Some(known) = self.known.iter().find(|known| known.block == block) {
            return Ok(known.trailer.clone());
        }
        let mut trailer = GrpcTrailer::default();
        self.decoder
            .decode_with_cb(block, |name, value| match name.as_ref() {
                b"grpc-status" => {
                    trailer.status = std::str::from_utf8(&value).ok().and_then(|s| s.parse().ok())
                }
                b"grpc-message" => trailer.message = String::from_utf8_lossy(&value).into_owned(),
                _ => {}
            })
            .map_err(|error| anyhow!("header block cannot be decoded: {error:?}"))?;
        if indexed_only {
            self.known.push(Known { block: block.to_vec(), trailer: trailer.clone() });
        }
        Ok(trailer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeated_header_takes_one_byte_and_still_decodes() {
        let mut encoder = Encoder::default();
        let (mut first, mut second) = (Vec::new(), Vec::new());
        encoder.header(&mut first, "grpc-status", "5");
        encoder.header(&mut second, "grpc-status", "5");
        assert_eq!(second.len(), 1);
        let mut decoder = ResponseDecoder::new();
        assert_eq!(decoder.decode(&first).unwrap().status, Some(5));
        assert_eq!(decoder.decode(&second).unwrap().status, Some(5));
        assert_eq!(decoder.decode(&second).unwrap().status, Some(5));
    }

    #[test]
    fn a_remembered_block_is_forgotten_when_the_table_shifts() {
        // Index 62 is status 0 at first; after another insertion the same byte means status 7.
        let mut encoder = Encoder::default();
        let (mut zero, mut seven) = (Vec::new(), Vec::new());
        encoder.header(&mut zero, "grpc-status", "0");
        encoder.header(&mut seven, "grpc-status", "7");
        let mut decoder = ResponseDecoder::new();
        decoder.decode(&zero).unwrap();
        assert_eq!(decoder.decode(&[0x80 | 62]).unwrap().status, Some(0));
        decoder.decode(&seven).unwrap();
        assert_eq!(decoder.decode(&[0x80 | 62]).unwrap().status, Some(7));
    }

    #[test]
    fn a_broken_block_is_an_error() {
        assert!(ResponseDecoder::new().decode(&[0x80 | 70]).is_err());
    }
}
