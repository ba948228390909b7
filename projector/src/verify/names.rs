//! Names and pairs of names by number. A comparison holds one of each user and conversation there is, so they take
//! little memory: the text once, and a number of four bytes everywhere else.

use hashbrown::HashTable;
use shared::ids::{Conversation, Username};
use xxhash_rust::xxh3::xxh3_64;

#[derive(Default)]
pub(super) struct Names {
    text: Vec<u8>,
    /// Where each name ends in `text`.
    ends: Vec<u32>,
    numbers: HashTable<u32>,
}

impl Names {
    /// 0, 1, 2, … in the order in which names are seen first.
    pub(super) fn number(&mut self, name: &Username) -> u32 {
        let name = name.as_str().as_bytes();
        let Self { text, ends, numbers } = self;
        let hash = xxh3_64(name);
        if let Some(number) = numbers.find(hash, |number| of(text, ends, *number) == name) {
            return *number;
        }
        let number = number_of(ends.len());
        text.extend_from_slice(name);
        ends.push(number_of(text.len()));
        numbers.insert_unique(hash, number, |number| xxh3_64(of(text, ends, *number)));
        number
    }

    /// # Panics
    /// When no name has this number.
    pub(super) fn name(&self, number: u32) -> Username {
        let name = std::str::from_utf8(of(&self.text, &self.ends, number)).expect("it was a name");
        name.parse().expect("it was a name")
    }

    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }
}

fn of<'a>(text: &'a [u8], ends: &[u32], number: u32) -> &'a [u8] {
    let at = number as usize;
    let begin = if at == 0 { 0 } else { ends[at - 1] };
    &text[begin as usize..ends[at] as usize]
}

pub(super) fn number_of(count: usize) -> u32 {
    u32::try_from(count).expect("four thousand million are more than fit into memory")
}

/// Pairs of the numbers of two names, lower name first.
#[derive(Default)]
pub(super) struct Pairs {
    pairs: Vec<(u32, u32)>,
    numbers: HashTable<u32>,
    /// The one that was asked for last: rows and events often come in rows.
    last: Option<(Conversation, u32)>,
}

impl Pairs {
    pub(super) fn number(&mut self, names: &mut Names, conversation: &Conversation) -> u32 {
        if let Some((_, number)) = self.last.as_ref().filter(|(last, _)| last == conversation) {
            return *number;
        }
        let pair = (names.number(conversation.low()), names.number(conversation.high()));
        let Self { pairs, numbers, last } = self;
        let number = match numbers.find(hash(pair), |number| pairs[*number as usize] == pair) {
            Some(number) => *number,
            None => {
                let number = number_of(pairs.len());
                pairs.push(pair);
                numbers.insert_unique(hash(pair), number, |number| hash(pairs[*number as usize]));
                number
            }
        };
        *last = Some((conversation.clone(), number));
        number
    }

    /// # Panics
    /// When no pair has this number.
    pub(super) fn names(&self, names: &Names, number: u32) -> [Username; 2] {
        let (low, high) = self.pairs[number as usize];
        [names.name(low), names.name(high)]
    }

    pub(super) fn len(&self) -> usize {
        self.pairs.len()
    }
}

fn hash((low, high): (u32, u32)) -> u64 {
    xxh3_64([low, high].map(u32::to_le_bytes).as_flattened())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_and_pair_has_its_own_number() {
        let (mut names, mut pairs) = (Names::default(), Pairs::default());
        let name = |number: u32| -> Username { format!("user{number}").parse().unwrap() };
        let pair = |number| Conversation::between(&name(number), &name(number + 1)).unwrap();
        for _ in 0..2 {
            for number in 0..5_000 {
                assert_eq!(names.number(&name(number)), number);
            }
            for number in 0..4_999 {
                assert_eq!(pairs.number(&mut names, &pair(number)), number);
            }
        }
        assert_eq!((names.len(), pairs.len()), (5_000, 4_999));
        assert_eq!(names.name(4_711), name(4_711));
        let [low, high] = pairs.names(&names, 99);
        assert_eq!((&low, &high), (pair(99).low(), pair(99).high()), "sorted as text: user100, user99");
    }
}
