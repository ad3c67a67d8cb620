//! HTTP/2 frames as bytes: the nine-byte header, whole frames, and the padding that may surround a payload.
//!
//! Only what a gRPC client needs. Every parser returns an error for input that is too short; none panics.

use anyhow::{Context, Result};

pub(crate) const HEADER_BYTES: usize = 9;
/// The largest payload every peer must accept (RFC 9113, 4.2).
pub(crate) const MAX_PAYLOAD: usize = 16_384;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

/// The same bit means END_STREAM on DATA and HEADERS, and ACK on SETTINGS and PING.
pub(crate) const END_STREAM: u8 = 0x1;
pub(crate) const ACK: u8 = 0x1;
pub(crate) const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// The fixed header in front of every payload.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct FrameHeader {
    pub(crate) length: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

impl FrameHeader {
    /// `None` when fewer than nine bytes are there yet.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = *bytes.first_chunk::<HEADER_BYTES>()?;
        Some(FrameHeader {
            length: u32::from_be_bytes([0, l0, l1, l2]) as usize,
            kind,
            flags,
            stream: u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff,
        })
    }

    pub(crate) fn write(self, out: &mut Vec<u8>) {
        debug_assert!(self.length <= MAX_PAYLOAD);
        let [_, l0, l1, l2] = (self.length as u32).to_be_bytes();
        out.extend_from_slice(&[l0, l1, l2, self.kind, self.flags]);
        out.extend_from_slice(&self.stream.to_be_bytes());
    }

    pub(crate) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The payload without padding and without the priority fields that HEADERS may carry.
    pub(crate) fn content(self, payload: &[u8]) -> Result<&[u8]> {
        let mut content = payload;
        if self.has(PADDED) {
            let (pad, rest) = content.split_first().context("padded frame without a pad length")?;
            let keep = rest.len().checked_sub(usize::from(*pad)).context("padding longer than its frame")?;
            content = &rest[..keep];
        }
        if self.kind == HEADERS && self.has(PRIORITY) {
            content = content.get(5..).context("priority fields cut short")?;
        }
        Ok(content)
    }
}

/// One whole frame. `payload` holds at most [`MAX_PAYLOAD`] bytes.
pub(crate) fn write_frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    FrameHeader { length: payload.len(), kind, flags, stream }.write(out);
    out.extend_from_slice(payload);
}

/// The four big-endian bytes that RST_STREAM and WINDOW_UPDATE consist of.
pub(crate) fn payload_u32(payload: &[u8]) -> Result<u32> {
    let bytes: [u8; 4] = payload.try_into().context("frame payload is not four bytes")?;
    Ok(u32::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_header_parses_to_itself() {
        let mut out = Vec::new();
        write_frame(&mut out, DATA, END_STREAM, 7, b"abc");
        let header = FrameHeader::parse(&out).unwrap();
        assert_eq!(header, FrameHeader { length: 3, kind: DATA, flags: END_STREAM, stream: 7 });
        assert_eq!(FrameHeader::parse(&out[..8]), None);
    }

    #[test]
    fn padding_is_removed_and_impossible_padding_refused() {
        let padded = FrameHeader { length: 0, kind: DATA, flags: PADDED, stream: 1 };
        assert_eq!(padded.content(&[2, b'x', 0, 0]).unwrap(), b"x");
        assert!(padded.content(&[4, b'x', 0, 0]).is_err());
        assert!(padded.content(&[]).is_err());
    }
}
