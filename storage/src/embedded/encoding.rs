//! How a value lies on disk: a version byte, then numbers (big endian) and byte strings (each after its length)
//! one after the other. It knows no value: each file encodes its own, next to the code that reads it.

/// Room for most values, so that they are not moved while they grow.
const USUAL_BYTES: usize = 256;

/// Writes a value.
pub(super) struct Encoder(Vec<u8>);

impl Encoder {
    pub(super) fn new(version: u8) -> Self {
        let mut value = Vec::with_capacity(USUAL_BYTES);
        value.push(version);
        Self(value)
    }

    pub(super) fn u8(mut self, number: u8) -> Self {
        self.0.push(number);
        self
    }

    pub(super) fn u32(mut self, number: u32) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    pub(super) fn u64(mut self, number: u64) -> Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    /// Of a length that the reader knows.
    pub(super) fn array(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// # Panics
    /// Beyond 4 GiB, which no bounded request reaches.
    pub(super) fn bytes(self, bytes: &[u8]) -> Self {
        let length = u32::try_from(bytes.len()).expect("a stored field is bounded far below 4 GiB");
        self.u32(length).array(bytes)
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads a value; `None` wherever the bytes are not what an [`Encoder`] of this version wrote.
pub(super) struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    pub(super) fn new(version: u8, bytes: &'a [u8]) -> Option<Self> {
        let (found, rest) = bytes.split_first()?;
        (*found == version).then_some(Self(rest))
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.u32()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    pub(super) fn text(&mut self) -> Option<String> {
        std::str::from_utf8(self.bytes()?).ok().map(str::to_owned)
    }

    /// Nothing may be left over.
    pub(super) fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// A value that is one number.
pub(super) fn number(bytes: &[u8]) -> Option<u64> {
    bytes.try_into().ok().map(u64::from_be_bytes)
}
