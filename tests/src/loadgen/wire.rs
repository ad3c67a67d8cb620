//! Protobuf at the level of bytes: writing the few field kinds etcd uses, and walking the fields of a message.
//!
//! Written by hand because a generator that allocates a tree per answer measures itself.

use anyhow::{Context, Result, bail};

pub(crate) fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A `bytes`, `string` or message field. Empty ones are left out, as proto3 does.
pub(crate) fn write_bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    if !value.is_empty() {
        write_varint(out, u64::from(number << 3 | 2));
        write_varint(out, value.len() as u64);
        out.extend_from_slice(value);
    }
}

/// An `int64`, `bool` or enum field. Zero is left out, as proto3 does.
pub(crate) fn write_int(out: &mut Vec<u8>, number: u32, value: i64) {
    if value != 0 {
        write_varint(out, u64::from(number << 3));
        write_varint(out, value as u64);
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Int(u64),
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    pub(crate) fn int(self) -> Option<u64> {
        match self {
            Value::Int(value) => Some(value),
            Value::Bytes(_) => None,
        }
    }

    pub(crate) fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Value::Bytes(value) => Some(value),
            Value::Int(_) => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Field<'a> {
    pub(crate) number: u32,
    pub(crate) value: Value<'a>,
}

/// The fields of one message, in the order they were sent. Fixed-size fields, which etcd does not use, are errors.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Fields { rest: message }
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().context("message ends inside a number")?;
            self.rest = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        bail!("a number of more than ten bytes")
    }

    fn field(&mut self) -> Result<Field<'a>> {
        let key = self.varint()?;
        let number = (key >> 3) as u32;
        let value = match key & 7 {
            0 => Value::Int(self.varint()?),
            2 => {
                let length = self.varint()? as usize;
                let bytes = self.rest.get(..length).context("field longer than its message")?;
                self.rest = &self.rest[length..];
                Value::Bytes(bytes)
            }
            other => bail!("wire type {other} in field {number}"),
        };
        Ok(Field { number, value })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// The first field of that number; proto3 leaves out zero, so absent is 0.
pub(crate) fn find_int(message: &[u8], number: u32) -> Result<u64> {
    Ok(find(message, number)?.and_then(Value::int).unwrap_or(0))
}

/// The first field of that number, if it is there.
pub(crate) fn find_bytes(message: &[u8], number: u32) -> Result<Option<&[u8]>> {
    Ok(find(message, number)?.and_then(Value::bytes))
}

fn find(message: &[u8], number: u32) -> Result<Option<Value<'_>>> {
    for field in Fields::new(message) {
        let field = field?;
        if field.number == number {
            return Ok(Some(field.value));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_found_again() {
        let mut out = Vec::new();
        write_bytes(&mut out, 1, b"key");
        write_int(&mut out, 2, -1);
        write_int(&mut out, 3, 0);
        write_bytes(&mut out, 16, &[7; 300]);
        assert_eq!(find_bytes(&out, 1).unwrap(), Some(b"key".as_slice()));
        assert_eq!(find_int(&out, 2).unwrap(), u64::MAX);
        assert_eq!(find_int(&out, 3).unwrap(), 0);
        assert_eq!(find_bytes(&out, 16).unwrap(), Some([7; 300].as_slice()));
    }

    #[test]
    fn malformed_messages_are_errors_and_end_the_walk() {
        for broken in [&[0x0a, 5, 1][..], &[0x08], &[0x09, 0, 0], &[0xff; 11]] {
            let fields: Vec<_> = Fields::new(broken).collect();
            assert!(fields.last().unwrap().is_err(), "{broken:?}");
        }
    }
}
