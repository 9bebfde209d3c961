//! Bodies whose every byte depends on its position: bytes that are lost, repeated, swapped, zeroed or of another body
//! show, where a body of one letter looks whole as long as its length is right.

use bytes::Bytes;

/// `length` bytes of the body number `seed`.
pub fn bytes(seed: u64, length: usize) -> Bytes {
    let words = (0..length.div_ceil(8) as u64).flat_map(|word| mixed(seed, word).to_le_bytes());
    words.take(length).collect()
}

/// `body` in pieces of lengths around those that frames and buffers have.
pub fn pieces(mut body: Bytes) -> impl Iterator<Item = Bytes> {
    let lengths = [1, 4095, 4096, 4097, 17, 16_384, 65_537, 333].into_iter().cycle();
    lengths.map_while(move |length| (!body.is_empty()).then(|| body.split_to(length.min(body.len()))))
}

/// Panics unless `got` is `wanted`, byte for byte, and says where they begin to differ instead of showing them whole.
pub fn assert_same(what: &str, got: &[u8], wanted: &[u8]) {
    if got == wanted {
        return;
    }
    let at = got.iter().zip(wanted).take_while(|(got, wanted)| got == wanted).count();
    let around = |all: &[u8]| all[at.min(all.len())..all.len().min(at + 16)].to_vec();
    let lengths = (got.len(), wanted.len());
    panic!(
        "{what}: of {} bytes, wanted {}, from {at} on {:?} for {:?}",
        lengths.0,
        lengths.1,
        around(got),
        around(wanted)
    );
}

/// The finalizer of SplitMix64: neighbouring inputs have nothing in common.
const fn mixed(seed: u64, word: u64) -> u64 {
    let mut bits = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(word).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits ^= bits >> 30;
    bits = bits.wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_depends_on_its_position_and_body() {
        let (one, other) = (bytes(1, 100_001), bytes(2, 100_001));
        assert_eq!((one.len(), &one[..10]), (100_001, &bytes(1, 10)[..]));
        for shift in [1, 8, 4096, 16_384, 65_536] {
            let same = one[shift..].iter().zip(&one[..]).filter(|(moved, byte)| moved == byte).count();
            assert!(same < one.len() / 100, "{same} bytes stay when the body moves by {shift}");
        }
        let same = one.iter().zip(&other).filter(|(one, other)| one == other).count();
        assert!(same < one.len() / 100, "{same} bytes are those of another body");
    }

    #[test]
    fn pieces_are_the_whole() {
        let body = bytes(3, 200_000);
        let pieces: Vec<Bytes> = pieces(body.clone()).collect();
        assert!(pieces.len() > 8 && pieces.concat() == body);
    }

    #[test]
    #[should_panic(expected = "an upload: of 3 bytes, wanted 3, from 1 on [0, 3] for [2, 3]")]
    fn a_difference_is_shown_where_it_begins() {
        assert_same("an upload", &[1, 0, 3], &[1, 2, 3]);
    }
}
