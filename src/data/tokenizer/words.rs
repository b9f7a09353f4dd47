//! A bounded memory of how words tokenize, shared by all threads: most words of a text were seen before.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

/// Words kept: a few MiB. Later ones are tokenized each time.
const MOST_WORDS: usize = 1 << 17;
/// Longer words are rare and not kept.
const LONGEST_WORD: usize = 48;

/// Token ids by word.
#[derive(Debug, Default)]
pub struct WordCache {
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Where in `ids` each word's tokens are: start and count.
    places: HashMap<Box<str>, (u32, u32)>,
    ids: Vec<u32>,
}

impl WordCache {
    /// Appends the tokens of the words of `text`, which are what lies between spaces, to `row` until it
    /// has `most` tokens. Words that are not known are tokenized by `tokenize`.
    ///
    /// # Errors
    /// Those of `tokenize`.
    pub fn append<E>(
        &self,
        text: &str,
        row: &mut Vec<u32>,
        most: usize,
        tokenize: impl Fn(&str) -> Result<Vec<u32>, E>,
    ) -> Result<(), E> {
        let mut new: Vec<(&str, Vec<u32>)> = Vec::new();
        // No code that holds the lock can fail halfway, so a poisoned one is whole.
        let read = || self.known.read().unwrap_or_else(PoisonError::into_inner);
        let mut known = read();
        for word in text.split(' ').filter(|word| !word.is_empty()) {
            if row.len() >= most {
                break;
            }
            if let Some(&(start, count)) = known.places.get(word) {
                row.extend_from_slice(&known.ids[start as usize..(start + count) as usize]);
                continue;
            }
            // No thread that has words to keep waits while this one tokenizes.
            drop(known);
            let ids = tokenize(word)?;
            row.extend_from_slice(&ids);
            if word.len() <= LONGEST_WORD {
                new.push((word, ids));
            }
            known = read();
        }
        row.truncate(most);
        let full = known.places.len() >= MOST_WORDS;
        drop(known);
        if full || new.is_empty() {
            return Ok(());
        }
        // Waited for: where other threads always read, a mere attempt would keep next to nothing.
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for (word, ids) in new {
            known.insert(word, &ids);
        }
        Ok(())
    }
}

impl Known {
    fn insert(&mut self, word: &str, ids: &[u32]) {
        if self.places.len() < MOST_WORDS && !self.places.contains_key(word) {
            let place = (self.ids.len() as u32, ids.len() as u32);
            self.ids.extend_from_slice(ids);
            self.places.insert(word.into(), place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::convert::Infallible;

    #[test]
    fn tokenizes_each_word_once_and_stops_when_full() {
        let cache = WordCache::default();
        let asked = RefCell::new(Vec::new());
        let lengths = |word: &str| -> Result<Vec<u32>, Infallible> {
            asked.borrow_mut().push(word.to_owned());
            Ok(vec![word.len() as u32; 2])
        };
        let append = |text: &str, most: usize| {
            let mut row = vec![0];
            cache.append(text, &mut row, most, lengths).unwrap();
            row
        };
        assert_eq!(append(" a  bb a ", 100), [0, 1, 1, 2, 2, 1, 1]);
        assert_eq!(append("a bb ccc a", 4), [0, 1, 1, 2]);
        assert_eq!(append("a ccc", 100), [0, 1, 1, 3, 3]);
        // Within one text a new word may be asked for twice; afterwards it is known.
        assert_eq!(*asked.borrow(), ["a", "bb", "a", "ccc"]);
    }

    #[test]
    fn keeps_no_more_than_it_may() {
        let cache = WordCache::default();
        let mut row = Vec::new();
        let tokenize = |word: &str| Ok::<_, Infallible>(vec![word.len() as u32]);
        let words: Vec<String> = (0..MOST_WORDS + 10).map(|i| i.to_string()).collect();
        let text = words.join(" ") + " " + &"x".repeat(LONGEST_WORD + 1);
        cache.append(&text, &mut row, usize::MAX, tokenize).unwrap();
        let known = cache.known.read().unwrap();
        assert_eq!(known.places.len(), MOST_WORDS);
        assert_eq!(known.ids.len(), MOST_WORDS);
    }

    #[test]
    fn errors_come_through() {
        let cache = WordCache::default();
        let fail = |_: &str| Err("no");
        assert_eq!(cache.append("a", &mut Vec::new(), 9, fail), Err("no"));
    }
}
