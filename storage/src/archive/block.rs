//! How a block is written: a version, the length of its entries, a checksum over all of it and its place, and the
//! entries, compressed with LZ4. A bit that is not as it was written is found before anything is made of it.

use shared::ids::Position;
use shared::ports::{Block, LogEntry};

const VERSION: u8 = 1;
/// Version, length, checksum.
const HEADER_BYTES: usize = 1 + 4 + 4;

/// Why bytes are not the block that they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadBlock {
    #[error("version {0} is newer than this program")]
    FutureVersion(u8),
    #[error("checksum is {found:08x}, the content's is {expected:08x}")]
    Checksum { found: u32, expected: u32 },
    #[error("it ends too soon")]
    Short,
    #[error("it cannot be unpacked")]
    Packed,
}

/// # Panics
/// On 4 GiB of entries: Redis holds none so large.
#[must_use]
pub fn encode(block: &Block) -> Vec<u8> {
    let size = |entry: &LogEntry| 8 + 8 + 4 + entry.fields.iter().map(|field| 4 + field.len()).sum::<usize>();
    let mut entries = Vec::with_capacity(block.entries.iter().map(size).sum());
    for LogEntry { position, fields } in &block.entries {
        entries.extend_from_slice(&position.ms.to_le_bytes());
        entries.extend_from_slice(&position.counter.to_le_bytes());
        entries.extend_from_slice(&length(fields.len()));
        for field in fields {
            entries.extend_from_slice(&length(field.len()));
            entries.extend_from_slice(field);
        }
    }
    let packed = lz4_flex::block::compress(&entries);
    let length = length(entries.len());
    drop(entries);
    let mut bytes = Vec::with_capacity(HEADER_BYTES + packed.len());
    bytes.push(VERSION);
    bytes.extend_from_slice(&length);
    bytes.extend_from_slice(&checksum(block.partition, block.number, length, &packed).to_le_bytes());
    bytes.extend_from_slice(&packed);
    bytes
}

/// # Errors
/// Unless they are exactly what [`encode`] made of the block with this place.
pub fn decode(partition: u16, number: u64, bytes: &[u8]) -> Result<Block, BadBlock> {
    let mut header = Reader(bytes);
    let [version] = header.array()?;
    let (length, found) = (header.array()?, u32::from_le_bytes(header.array()?));
    let packed = header.0;
    if version > VERSION {
        return Err(BadBlock::FutureVersion(version));
    }
    let expected = checksum(partition, number, length, packed);
    if version < VERSION || found != expected {
        return Err(BadBlock::Checksum { found, expected });
    }
    let length = u32::from_le_bytes(length) as usize;
    let unpacked = lz4_flex::block::decompress(packed, length).map_err(|_| BadBlock::Packed)?;
    let (mut reader, mut entries) = (Reader(&unpacked), Vec::new());
    while !reader.0.is_empty() {
        let (ms, counter) = (u64::from_le_bytes(reader.array()?), u64::from_le_bytes(reader.array()?));
        let count = reader.length()?;
        let fields = (0..count).map(|_| reader.field()).collect::<Result<_, _>>()?;
        entries.push(LogEntry { position: Position { partition, ms, counter }, fields });
    }
    Ok(Block { partition, number, entries })
}

fn length(length: usize) -> [u8; 4] {
    u32::try_from(length).expect("Redis bounds a field to 512 MiB, and a block has few").to_le_bytes()
}

fn checksum(partition: u16, number: u64, length: [u8; 4], packed: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&partition.to_le_bytes());
    hasher.update(&number.to_le_bytes());
    hasher.update(&length);
    hasher.update(packed);
    hasher.finalize()
}

/// What is left to be read.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadBlock> {
        let (array, rest) = self.0.split_first_chunk().ok_or(BadBlock::Short)?;
        self.0 = rest;
        Ok(*array)
    }

    fn length(&mut self) -> Result<usize, BadBlock> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    fn field(&mut self) -> Result<Vec<u8>, BadBlock> {
        let length = self.length()?;
        let (field, rest) = self.0.split_at_checked(length).ok_or(BadBlock::Short)?;
        self.0 = rest;
        Ok(field.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(entries: u64) -> Block {
        let entry = |counter| {
            let header =
                format!("1 MessageSent c:anna:ben 01JD0000000000000000000000 - {counter} {counter} 0badcafe");
            let position = Position { partition: 3, ms: 1_700_000_000_000, counter };
            LogEntry {
                position,
                fields: vec![b"e".to_vec(), header.into_bytes(), b"p".to_vec(), b"{}".to_vec()],
            }
        };
        Block { partition: 3, number: 7, entries: (1..=entries).map(entry).collect() }
    }

    #[test]
    fn what_was_written_is_read() {
        for entries in [0, 1, 128] {
            assert_eq!(decode(3, 7, &encode(&block(entries))), Ok(block(entries)));
        }
        let mut odd = block(3);
        odd.entries[0].fields = Vec::new();
        odd.entries[1].fields = vec![Vec::new(), vec![0, 255, 10, 13], b"x".to_vec()];
        odd.entries[2].position = Position { partition: 3, ms: u64::MAX, counter: u64::MAX };
        assert_eq!(decode(3, 7, &encode(&odd)), Ok(odd));
    }

    #[test]
    fn entries_of_one_kind_take_a_third() {
        let full = block(128);
        let written: usize = full.entries.iter().flat_map(|entry| &entry.fields).map(Vec::len).sum();
        assert!(encode(&full).len() * 3 < written);
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let good = encode(&block(5));
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(3, 7, &bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_block_that_is_cut_or_in_another_place_is_told() {
        let good = encode(&block(5));
        assert_eq!(decode(3, 7, &good[..8]), Err(BadBlock::Short));
        assert!(matches!(decode(3, 7, &good[..good.len() - 1]), Err(BadBlock::Checksum { .. })));
        assert!(matches!(decode(3, 8, &good), Err(BadBlock::Checksum { .. })));
        assert!(matches!(decode(4, 7, &good), Err(BadBlock::Checksum { .. })));
        let mut newer = good;
        newer[0] = 2;
        assert_eq!(decode(3, 7, &newer), Err(BadBlock::FutureVersion(2)));
    }
}
