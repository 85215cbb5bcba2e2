// SPDX-License-Identifier: Apache-2.0
//! The header of a packet (virtio 1.2 §5.10.6): forty-four bytes, copied out of the guest's memory once.
//!
//! Not for judging it: any forty-four bytes are a header, and [`super::conn`] and [`super::mux`] say what is wrong
//! with it.

/// Bytes of a header.
pub(crate) const HEADER_LEN: usize = 44;

/// The only socket type here: a stream of bytes.
pub(crate) const TYPE_STREAM: u16 = 1;

/// What a packet is for (§5.10.6).
pub(crate) mod op {
    /// Connect.
    pub(crate) const REQUEST: u16 = 1;
    /// Accept a connection.
    pub(crate) const RESPONSE: u16 = 2;
    /// Refuse or abort one.
    pub(crate) const RST: u16 = 3;
    /// No more of some kind will come.
    pub(crate) const SHUTDOWN: u16 = 4;
    /// Payload.
    pub(crate) const RW: u16 = 5;
    /// Credit, unasked.
    pub(crate) const CREDIT_UPDATE: u16 = 6;
    /// Asks for [`CREDIT_UPDATE`].
    pub(crate) const CREDIT_REQUEST: u16 = 7;
}

/// Flags of [`op::SHUTDOWN`] (§5.10.6.5).
pub(crate) mod shutdown {
    /// The sender will receive no more.
    pub(crate) const RECEIVE: u32 = 1;
    /// The sender will send no more.
    pub(crate) const SEND: u32 = 2;
    /// Both.
    pub(crate) const BOTH: u32 = RECEIVE | SEND;
}

/// A header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) src_cid: u64,
    pub(crate) dst_cid: u64,
    pub(crate) src_port: u32,
    pub(crate) dst_port: u32,
    /// Bytes of payload.
    pub(crate) len: u32,
    pub(crate) kind: u16,
    pub(crate) op: u16,
    pub(crate) flags: u32,
    /// Bytes that the sender keeps for this connection.
    pub(crate) buf_alloc: u32,
    /// Bytes of the connection that the sender has passed on so far, modulo 2^32.
    pub(crate) fwd_cnt: u32,
}

impl Header {
    /// Reads a header.
    pub(crate) fn parse(bytes: &[u8; HEADER_LEN]) -> Self {
        let mut rest = bytes.as_slice();
        Self {
            src_cid: u64::from_le_bytes(cut(&mut rest)),
            dst_cid: u64::from_le_bytes(cut(&mut rest)),
            src_port: u32::from_le_bytes(cut(&mut rest)),
            dst_port: u32::from_le_bytes(cut(&mut rest)),
            len: u32::from_le_bytes(cut(&mut rest)),
            kind: u16::from_le_bytes(cut(&mut rest)),
            op: u16::from_le_bytes(cut(&mut rest)),
            flags: u32::from_le_bytes(cut(&mut rest)),
            buf_alloc: u32::from_le_bytes(cut(&mut rest)),
            fwd_cnt: u32::from_le_bytes(cut(&mut rest)),
        }
    }

    /// Writes it.
    pub(crate) fn bytes(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        let fields: [&[u8]; 10] = [
            &self.src_cid.to_le_bytes(),
            &self.dst_cid.to_le_bytes(),
            &self.src_port.to_le_bytes(),
            &self.dst_port.to_le_bytes(),
            &self.len.to_le_bytes(),
            &self.kind.to_le_bytes(),
            &self.op.to_le_bytes(),
            &self.flags.to_le_bytes(),
            &self.buf_alloc.to_le_bytes(),
            &self.fwd_cnt.to_le_bytes(),
        ];
        for (to, from) in out.iter_mut().zip(fields.into_iter().flatten()) {
            *to = *from;
        }
        out
    }
}

/// The next `N` bytes; zeros where there are none, which a header's fixed length excludes.
fn cut<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let Some((field, later)) = rest.split_first_chunk() else {
        return [0; N];
    };
    *rest = later;
    *field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_the_specification_puts_them() {
        let header = Header {
            src_cid: 3,
            dst_cid: 2,
            src_port: 0x0102_0304,
            dst_port: 1024,
            len: 7,
            kind: TYPE_STREAM,
            op: op::RW,
            flags: 0x0a0b_0c0d,
            buf_alloc: 0x0004_0000,
            fwd_cnt: u32::MAX,
        };
        let bytes = header.bytes();
        assert_eq!(bytes[0], 3);
        assert_eq!(bytes[8], 2);
        assert_eq!(bytes[16..20], [4, 3, 2, 1]);
        assert_eq!(bytes[24], 7);
        assert_eq!((bytes[28], bytes[30]), (1, 5));
        assert_eq!(bytes[32..36], [0x0d, 0x0c, 0x0b, 0x0a]);
        assert_eq!(bytes[40..44], [0xff; 4]);
        assert_eq!(Header::parse(&bytes), header);
    }
}
