//! raft-engine's own file format, read strictly: what the check at start needs to see every byte accounted for.
//!
//! Format version 2, alignment 0, no compression; see `docs/formats/log.md`. Anything else is an error, never a panic.

use std::ops::Range;

use super::checksum::crc32_ieee;
use super::record::be64;

const FILE_MAGIC: &[u8] = b"RAFT-LOG-FILE-HEADER-9986AB3E47F320B394C8E84916EB0ED5";
const FORMAT_VERSION: u64 = 2;
pub(super) const FILE_HEADER: usize = FILE_MAGIC.len() + 16;
const BATCH_HEADER: usize = 16;
const CRC: usize = 4;

/// One batch with the places of its parts in the file.
#[derive(Debug)]
pub(super) struct Batch<'a> {
    pub(super) end: usize,
    pub(super) items: Vec<Item<'a>>,
}

#[derive(Debug)]
pub(super) struct Item<'a> {
    pub(super) group: u64,
    pub(super) content: Content<'a>,
}

#[derive(Debug)]
pub(super) enum Content<'a> {
    /// Entries `first..`, each with the place of its protobuf message in the file.
    Entries {
        first: u64,
        places: Vec<Range<usize>>,
    },
    /// Entries before the index are gone.
    Compact(u64),
    /// The whole group is gone.
    Clean,
    Put {
        key: &'a [u8],
        value: &'a [u8],
    },
    Delete,
}

/// What a file begins with.
pub(super) fn file_header() -> Vec<u8> {
    const ALIGNMENT: u64 = 0;
    [FILE_MAGIC, &FORMAT_VERSION.to_be_bytes(), &ALIGNMENT.to_be_bytes()].concat()
}

pub(super) fn check_file_header(file: &[u8]) -> Result<(), &'static str> {
    let fields = FILE_MAGIC.len();
    if file.len() < FILE_HEADER || !file.starts_with(FILE_MAGIC) {
        return Err("the file header is missing");
    }
    if be64(file, fields) != FORMAT_VERSION || be64(file, fields + 8) != 0 {
        return Err("the file header has a version or alignment that this program does not write");
    }
    Ok(())
}

/// Whether the footer of the batch at `at` was written in this life of the file, whatever else is wrong with the batch.
pub(super) fn footer_belongs(file: &[u8], at: usize, file_number: u64) -> bool {
    header(file, at).is_ok_and(|place| footer(file, &place, file_number).is_ok())
}

/// Reads and verifies the batch at `at`.
pub(super) fn read_batch(file: &[u8], at: usize, file_number: u64) -> Result<Batch<'_>, &'static str> {
    let place = header(file, at)?;
    let footer = footer(file, &place, file_number)?;
    let block = at + BATCH_HEADER..place.footer;
    if !block.is_empty() {
        let crc_at = block
            .end
            .checked_sub(CRC)
            .filter(|crc_at| *crc_at > block.start)
            .ok_or("the entries are cut short")?;
        if crc32_ieee(&file[block.start..crc_at]) != le32(file, crc_at) {
            return Err("the checksum of the batch's entries is wrong");
        }
    }
    let entries = block.start..block.end.saturating_sub(CRC).max(block.start);
    let items = items(footer, entries).ok_or("the batch's footer cannot be read")?;
    Ok(Batch { end: place.end, items })
}

struct Place {
    footer: usize,
    end: usize,
}

fn header(file: &[u8], at: usize) -> Result<Place, &'static str> {
    if file.len().saturating_sub(at) < BATCH_HEADER {
        return Err("the batch header is cut short");
    }
    let (length, footer) = (be64(file, at) >> 8, be64(file, at + 8));
    if file[at + 7] != 0 {
        return Err("the batch header names a compression that this program does not use");
    }
    if footer < BATCH_HEADER as u64 || length < footer + CRC as u64 || length > (file.len() - at) as u64 {
        return Err("the lengths in the batch header are impossible");
    }
    Ok(Place { footer: at + footer as usize, end: at + length as usize })
}

fn footer<'a>(file: &'a [u8], place: &Place, file_number: u64) -> Result<&'a [u8], &'static str> {
    let crc_at = place.end - CRC;
    let content = &file[place.footer..crc_at];
    if content.is_empty() || crc32_ieee(content) != le32(file, crc_at) ^ file_number as u32 {
        return Err("the checksum of the batch's footer is wrong");
    }
    Ok(content)
}

fn items(mut footer: &[u8], entries: Range<usize>) -> Option<Vec<Item<'_>>> {
    let count = varint(&mut footer)?;
    let mut items = Vec::new();
    let mut entries_end = 0_u64;
    for _ in 0..count {
        let group = varint(&mut footer)?;
        let content = match byte(&mut footer)? {
            1 => {
                let entry_count = varint(&mut footer)?;
                let first = if entry_count > 0 { varint(&mut footer)? } else { 0 };
                let mut places = Vec::new();
                for _ in 0..entry_count {
                    let end = varint(&mut footer)?;
                    if end < entries_end || end > entries.len() as u64 {
                        return None;
                    }
                    places.push(entries.start + entries_end as usize..entries.start + end as usize);
                    entries_end = end;
                }
                Content::Entries { first, places }
            }
            2 => match byte(&mut footer)? {
                1 => Content::Clean,
                2 => Content::Compact(varint(&mut footer)?),
                _ => return None,
            },
            3 => {
                let kind = byte(&mut footer)?;
                let key = counted(&mut footer)?;
                match kind {
                    1 => Content::Put { key, value: counted(&mut footer)? },
                    2 => Content::Delete,
                    _ => return None,
                }
            }
            _ => return None,
        };
        items.push(Item { group, content });
    }
    footer.is_empty().then_some(items)
}

fn byte(bytes: &mut &[u8]) -> Option<u8> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*first)
}

fn counted<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(varint(bytes)?).ok()?;
    let (head, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(head)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let next = byte(bytes)?;
        value |= u64::from(next & 0x7f) << shift;
        if next < 0x80 {
            return Some(value);
        }
    }
    None
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(super::record::array(bytes, at))
}
